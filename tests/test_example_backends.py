"""The quick start on each backend, against stand-ins of remote APIs, and the guided notebook."""

from __future__ import annotations

import ast
import json
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc.errors import SglcError
from tests.backends.api_stub import Stub, serve

FOLDER = Path(__file__).parent.parent / "examples"
GUIDE = FOLDER / "guide.ipynb"
REMOTE = {"openai_chat": "/v1", "anthropic_chat": "", "gemini_chat": ""}  # what their URLs end in


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    yield from serve()


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", [name, *words])
    runpy.run_path(str(FOLDER / "quick_start" / f"{name}.py"), run_name="__main__")


def check(said: str) -> None:
    """The chat of two turns was printed."""
    assert [line.partition(" : ")[0] for line in said.splitlines() if " : " in line][:3] == [
        "system", "user", "assistant"]
    assert "user : List two local attractions." in said and said.count("assistant :") == 2


def test_every_quick_start_is_tested() -> None:
    assert {p.stem for p in (FOLDER / "quick_start").iterdir() if p.suffix == ".py"} == {
        *REMOTE, "local_chat", "hash_chat", "server_chat"}


@pytest.mark.parametrize("name", REMOTE)
def test_remote(name: str, stub: Stub, monkeypatch: pytest.MonkeyPatch,
                capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(key, "EMPTY")
    stub.reset()
    run(name, monkeypatch, "stub", stub.url + REMOTE[name])
    said = capsys.readouterr().out
    check(said)
    assert len(stub.asked) == 2
    for asked, answer in zip(stub.asked, ("answer_1", "answer_2"), strict=True):
        assert f"{answer} : {asked.prompt_tokens} tokens of prompt, {asked.output_tokens}" in said


@pytest.mark.parametrize("name, words, code, fix", [
    ("openai_chat", (), "SGLC010", "set OPENAI_API_KEY"),
    ("anthropic_chat", (), "SGLC010", "set ANTHROPIC_API_KEY"),
    ("server_chat", ("http://127.0.0.1:9",), "SGLC509", "sglc serve")])
def test_what_is_missing_is_said(name: str, words: tuple[str, ...], code: str, fix: str,
                                 tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in list(os.environ):
        if key.startswith(("OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))  # where an SDK may look for a login
    with pytest.raises(SglcError) as caught:
        run(name, monkeypatch, *words)
    assert caught.value.code == code and fix in str(caught.value)


@pytest.mark.parametrize("name", ["local_chat", "hash_chat"])
def test_local(name: str, monkeypatch: pytest.MonkeyPatch,
               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sgl, "Engine", lambda model: sgl.HashModel())
    run(name, monkeypatch)
    said = capsys.readouterr().out
    check(said)
    assert "of them computed" in said


def test_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with sgl.Runtime("hash") as server:
        run("server_chat", monkeypatch, server.url)
        assert server.stats().requests > 0
    said = capsys.readouterr().out
    check(said)
    assert "served by hash" in said


# -- the notebook ---------------------------------------------------------------------------------
def cells() -> list[str]:
    notebook = json.loads(GUIDE.read_text())
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code)
    return ["".join(c["source"]) for c in code]


def test_the_guide_runs_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "guide.py"
    script.write_text("\n".join(
        ["shown = []\n", *[_showing(text) for text in cells()]]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sgl, "Engine", sgl.HashModel)
    shown = [value for value in runpy.run_path(str(script))["shown"] if value is not None]
    said = capsys.readouterr().out
    assert "prompt.select" in said and "one after the other" in said and "Tool: " in said
    assert [type(value).__name__ for value in shown] == [
        "Program", "Pet", "Compiled", "bool", "PosixPath"]
    assert shown[3] is True  # both modes say the same
    assert "<svg" in shown[0]._repr_mimebundle_()["image/svg+xml"]
    assert "<html" in (tmp_path / "review.html").read_text()


def _showing(cell: str) -> str:
    """The cell as a script has it: the value that a notebook shows is kept."""
    last = ast.parse(cell).body[-1]
    if not isinstance(last, ast.Expr):
        return cell
    lines = cell.splitlines()
    before, value = lines[:last.lineno - 1], "\n".join(lines[last.lineno - 1:])
    return "\n".join([*before, f"shown.append({value})"])


@pytest.mark.slow
def test_the_guide_in_a_kernel(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel", reason="there is no kernel to run a notebook in")
    nbformat = pytest.importorskip("nbformat")
    preprocessors = pytest.importorskip("nbconvert.preprocessors")
    notebook: Any = nbformat.read(GUIDE, as_version=4)
    nbformat.validate(notebook)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(
        f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r})"))
    preprocessors.ExecutePreprocessor(timeout=120).preprocess(
        notebook, {"metadata": {"path": str(tmp_path)}})  # raises what a cell raises
    data = [output.get("data", {}) for cell in notebook.cells if cell.cell_type == "code"
            for output in cell.outputs]
    assert sum("image/svg+xml" in d and "text/html" in d for d in data) == 2
    assert [d["text/plain"] for d in data if d][-2:] == ["True", "PosixPath('review.html')"]
