"""The pages of diagnostic codes: their bad code gives that code and no other, their good code
gives none."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import sglc as sgl
from sglc.cli import main
from sglc.errors import CODES, LanguageError, SglcError, SglcWarning
from sglc.explain import Block, blocks, code_of, page


@pytest.fixture(scope="module", autouse=True)
def default_backend() -> Iterator[None]:
    with sgl.HashModel() as model:
        sgl.set_default_backend(model)
        yield
    sgl.set_default_backend(None)


def codes_of(source: str, path: Path) -> list[str]:
    """The codes that running a piece of code gives: raised, warned of, or printed."""
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    said = io.StringIO()
    found: list[str] = []
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(said):
        warnings.simplefilter("always")
        try:
            spec.loader.exec_module(module)
        except SglcError as e:
            found.append(e.code)
    found += [w.message.diagnostic.code for w in warned if isinstance(w.message, SglcWarning)]
    return list(dict.fromkeys(found + re.findall(r"SGLC\d{3}", said.getvalue())))


@pytest.mark.parametrize("code", CODES)
def test_code_of_the_page(code: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = blocks(page(code))
    assert {b.bad for b in found} == {True, False}
    folder = tmp_path_factory.mktemp("page")  # the file's name is printed, too
    for index, block in enumerate(found):
        wanted = [code] if block.bad else []
        assert codes_of(block.source, folder / f"code_{index}.py") == wanted, block.source


@pytest.mark.parametrize("code", CODES)
def test_form_of_the_page(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}: {CODES[code]}\n\n")
    assert text.count("```python") == len(blocks(text)) and "## What to do\n\n- " in text
    for line in text.splitlines():
        assert len(line) <= 110


def test_every_page_is_of_a_code() -> None:
    folder = Path(sgl.__file__).parent / "explain" / "pages"
    assert {p.stem for p in folder.iterdir()} == set(CODES)


def test_blocks() -> None:
    text = "x\n```python bad\na = 1\n```\n```\nno\n```\n```python good\n```\n"
    assert blocks(text) == [Block(True, "a = 1\n"), Block(False, "")]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out
    for code, title in CODES.items():
        assert f"{code}  {title}\n" in listed
    assert main(["explain", "sglc110", "412"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# SGLC110: ") and "\n# SGLC412: " in said
    assert main(["explain", "SGLC999"]) == 1
    assert "there is no diagnostic code 'SGLC999'" in capsys.readouterr().err


@pytest.mark.parametrize("written", ["SGLC110", "sglc110", "110"])
def test_ways_to_write_a_code(written: str) -> None:
    assert code_of(written) == "SGLC110"


@pytest.mark.parametrize("written", ["", "11", "SGLC", "../SGLC110", "SGLC110.md"])
def test_what_is_no_code(written: str) -> None:
    with pytest.raises(LanguageError) as caught:
        code_of(written)
    assert caught.value.code == "SGLC001"


