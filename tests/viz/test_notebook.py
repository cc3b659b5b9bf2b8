"""How programs show themselves in a notebook: text, a picture, HTML without scripts."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import sglc as sgl
from tests.viz.programs import HOSTILE, essays, hostile, shared

ROOT = Path(__file__).parent.parent.parent
KINDS = {"text/plain", "image/svg+xml", "text/html"}


@pytest.fixture(scope="module", params=["program", "compiled"])
def bundle(request: pytest.FixtureRequest) -> dict[str, str]:
    shown = shared if request.param == "program" else shared.compile(q="Why?")
    return shown._repr_mimebundle_(include=None, exclude=None)


def test_all_three_forms(bundle: dict[str, str]) -> None:
    assert set(bundle) == KINDS
    assert "3 model calls" in bundle["text/plain"]
    root = ElementTree.fromstring(bundle["image/svg+xml"])
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "gen one" in texts and "gen three" in texts


def test_the_html_is_complete_and_still(bundle: dict[str, str]) -> None:
    page = bundle["text/html"]
    assert not re.search(r"<script|<style|<link|\son\w+=|\sid=|https?:", page)
    image = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert image is not None
    assert base64.b64decode(image[1]).decode() == bundle["image/svg+xml"]
    for words in ("program @shared", "hoist-prefixes", "alt=", "<details>", "You are brief."):
        assert words in page


def test_styles_of_the_picture_are_its_own(bundle: dict[str, str]) -> None:
    style = bundle["image/svg+xml"].partition("<style>")[2].partition("</style>")[0]
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    for selectors in re.findall(r"([^{}@]+)\{(?!\s*\.sglc)", style):
        assert all(".sglc" in s for s in selectors.split(",")), selectors


def test_hostile_texts() -> None:
    shown = hostile.compile(text=HOSTILE)._repr_mimebundle_()
    ElementTree.fromstring(shown["image/svg+xml"].encode())
    assert "<script" not in shown["text/html"] and "<img src=x" not in shown["text/html"]
    assert shown["text/html"].count("<img") == 1


def test_many_boxes_alike_are_one() -> None:
    assert "×48" in essays.compile()._repr_mimebundle_()["image/svg+xml"]


def test_a_program_that_does_not_compile_says_why() -> None:
    @sgl.program(fullgraph=True)
    def broken(s: Any) -> None:
        s += sgl.gen("n")
        for _ in s["n"].split():
            s += "x"

    shown = broken._repr_mimebundle_()
    assert "broken" in shown["text/plain"]

    @sgl.program
    def eager(s: Any) -> None:
        exec("s += 'a'")  # it runs in the eager interpreter

    shown = eager._repr_mimebundle_()
    assert set(shown) == {"text/plain"} and "not captured" in shown["text/plain"]


@pytest.mark.slow
def test_in_a_notebook(tmp_path: Path) -> None:
    """A notebook that is run and converted holds the picture, whole."""
    convert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    preprocessors = pytest.importorskip("nbconvert.preprocessors")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="there is no kernel to run a notebook in")
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
                                  "from tests.viz.programs import essays\nessays"),
        nbformat.v4.new_code_cell("essays.compile(essay='x')")])
    preprocessors.ExecutePreprocessor(timeout=120).preprocess(
        notebook, {"metadata": {"path": str(tmp_path)}})
    for cell in notebook.cells:
        assert set(cell.outputs[-1].data) >= KINDS
    page, _ = convert.HTMLExporter().from_notebook_node(notebook)
    shown = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(shown) == 2
    for image in shown:
        assert "×48" in base64.b64decode(image).decode()


def test_ipython_asks_for_it() -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    data, _ = formatters.DisplayFormatter().format(shared)
    assert set(data) >= KINDS
