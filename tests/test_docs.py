"""The documentation's code runs, and prints what the documentation says.

`python -m tests.test_docs` writes what the blocks print into the documents again after a change.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc import cli
from sglc.errors import CODES
from sglc.lang.calling import _CONTROL, _SAMPLING
from sglc.passes.pipelines import PASSES, pipeline
from tests.backends.api_stub import serve
from tests.documents import Block, blocks, commands, expected, outputs, rewrite
from tests.test_examples import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples.md"
PAGES = (*sorted(DOCS.glob("*.md")), ROOT / "CONTRIBUTING.md")
WITH_CODE = [p for p in PAGES if any(expected(p.read_text(encoding="utf-8")))]
ALL = "".join([p.read_text(encoding="utf-8") for p in PAGES])


def apis(url: str) -> dict[str, str]:
    """The environment in which the vendors' packages talk to the stand-in."""
    return {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k", "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "k"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the documents' commands read."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.fixture(scope="module")
def stub() -> Iterator[Any]:
    yield from serve()


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_python_blocks(page: Path, engine: Any, stub: Any, folder: Path,
                       monkeypatch: pytest.MonkeyPatch) -> None:
    document = page.read_text(encoding="utf-8")
    for name, value in apis(stub.url).items():
        monkeypatch.setenv(name, value)
    sgl.set_default_backend(engine)
    try:
        printed = outputs(document, folder, page.stem.lower())
    finally:
        sgl.set_default_backend(None)
    for text, (block, output) in zip(printed, expected(document), strict=True):
        shown = [] if output is None else output.text.strip("\n").splitlines()
        assert [line.rstrip() for line in text.splitlines()] == shown, block.text


def test_languages() -> None:
    """Nothing stands in the documents that no test looks at."""
    for page in PAGES:
        document = page.read_text(encoding="utf-8")
        known = {"python", "console", "text", "diff", "bibtex"}
        assert {b.language for b in blocks(document)} <= known, page
        opened = re.findall(r"^(`{3,}.*)$", document, re.M)
        others = [line for line in opened if line.strip("`") and not re.fullmatch(r"```\w+", line)]
        directive = r"`{3,4}\{(toctree|(literal)?include|eval-rst)\}.*"
        assert all(re.fullmatch(directive, line) for line in others), page
        ran = ("python", "console") if page == EXAMPLES else ("python",)
        shown = {o.start for lang in ran for _, o in expected(document, lang) if o is not None}
        alone = [b for b in blocks(document) if b.language in ("text", "diff")
                 and b.start not in shown]
        assert len(alone) <= (page.name == "CONTRIBUTING.md"), page  # its map of folders


# -- commands ---------------------------------------------------------------------------------
# SGLang's spellings that change nothing here.
UNSAID = ("use_thread", "skip_special_tokens", "spaces_between_special_tokens")


def found(*starting: str) -> list[str]:
    return list(dict.fromkeys([c for s in starting for c in commands(ALL, s)]))


def test_every_command_is_tested() -> None:
    tested = ("sglc ", "pip ", "make ", "curl ", "python ")
    assert set(found("")) == set(found(*tested))


def sglc(command: str) -> int:
    return cli.main(shlex.split(command, comments=True)[1:])


def test_commands_that_need_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the documents: some read what others wrote."""
    monkeypatch.chdir(folder)
    wanted = found("sglc compile", "sglc opt", "sglc viz", "sglc explain", "sglc env",
                   "sglc bench programs --workload", "sglc bench programs --list")
    assert len(wanted) > 15
    for command in wanted:
        files = set(folder.iterdir())
        assert sglc(command) == 0, command
        assert capsys.readouterr().out or set(folder.iterdir()) - files, command


def test_run_batch_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for command in found("sglc run-batch"):
        words = shlex.split(command)
        source, out = (folder / words[words.index(flag) + 1] for flag in ("-i", "-o"))
        assert sglc(f"{command} --model hash --no-progress") == 0
        assert out.read_text().count("\n") == source.read_text().count("\n")


@pytest.mark.parametrize("command", found("sglc run "))
def test_run_commands(command: str, monkeypatch: pytest.MonkeyPatch,
                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert sglc(command) == 0
    assert "Paris" in capsys.readouterr().out


@pytest.mark.parametrize("command", found(
    "sglc serve", "sglc chat", "sglc demo", "sglc bench"))
def test_other_commands_have_the_flags_that_are_shown(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    assert cli.parser().parse_args(words).command == words[0]


def test_curl_commands() -> None:
    from tests.serve.servers import running, send

    with running() as server:
        for command in found("curl"):
            words = shlex.split(command)
            url = words[1].replace("http://localhost:30000", server.url)
            body = words[words.index("-d") + 1].encode() if "-d" in words else None
            status, answer, _ = send(url, body)
            assert status == 200 and answer, command


class Parsed(Exception):
    """The arguments of a script are what it takes."""


NOTED = re.findall(r"^## .*$", (ROOT / "bench" / "notes.md").read_text(), re.M)
MEASURE = [re.sub(r"\bN\b", "2", command) for heading in NOTED
           for command in re.findall(r"`((?:python|sglc) [^`]*)`", heading)]


def test_the_notes_name_their_commands() -> None:
    assert len(MEASURE) > 10
    for command in MEASURE:
        assert command.startswith(("python -m bench", "python bench", "sglc bench"))
        if command.startswith("sglc"):
            assert cli.parser().parse_args(shlex.split(command)[1:]).command == "bench"


@pytest.mark.parametrize("command", dict.fromkeys([
    *found("python -m bench", "python bench"), *(c for c in MEASURE if c.startswith("python"))]))
def test_bench_commands(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names a script, and flags that it has."""
    parse = ArgumentParser.parse_args

    def parsed(self: ArgumentParser, *given: Any) -> None:
        parse(self, *given)
        raise Parsed

    words = shlex.split(command, comments=True)[1:]
    script = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
    assert (ROOT / script).exists()
    flags = words[words.index("-m") + 2 if "-m" in words else 1:]
    if "parse_args" not in (ROOT / script).read_text():
        assert not flags
        return
    monkeypatch.setattr(ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    with pytest.raises((Parsed, SystemExit)) as caught:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert caught.type is Parsed or caught.value.code == 0


def test_make_targets_extras_and_test_files_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for command in found("make"):
        assert re.search(rf"^{command.split()[1]}:", makefile, re.M), command
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(found("pip"))):
        for name in extra.split(","):
            assert re.search(rf"^{name} = \[", project, re.M), name
    for command in found("python -m pytest"):
        for word in re.findall(r"\btests/\S+", command):
            assert (ROOT / word).exists(), word
    assert len(found("python")) == len(found(
        "python -m pytest", "python -m bench", "python bench", "python -m tests.test_docs",
        "python examples"))


# -- completeness -----------------------------------------------------------------------------
def test_every_pass_is_shown() -> None:
    shown = re.findall(r"^## ([a-z-]+)$", (DOCS / "passes.md").read_text(), re.M)
    assert set(shown) == set(PASSES)
    assert shown == list(dict.fromkeys(pipeline(3).split(",")))  # in the order in which they run


def test_every_diagnostic_is_included() -> None:
    included = re.findall(r"pages/(\w+)\.md", (DOCS / "diagnostics.md").read_text())
    assert included == list(CODES)


def test_every_public_name_is_in_the_reference() -> None:
    reference = (DOCS / "api.md").read_text()
    missing = [name for name in sgl._NAMES if not re.search(rf"\b{name}\b", reference)]
    assert not missing


def test_every_option_is_said() -> None:
    """Of an engine in its docstring (which the reference shows), of runs on their page."""
    said = sgl.Engine.__doc__ or ""
    names = set(inspect.signature(sgl.Engine.__init__).parameters) - {"self"}
    assert [n for n in names if not re.search(rf"^    {n}: ", said, re.M)] == []
    page = (DOCS / "options.md").read_text()
    assert [n for n in (*_SAMPLING, *_CONTROL) if n not in UNSAID
            and not re.search(rf"`{n}\b", page)] == []


def test_every_verb_is_listed() -> None:
    listed = set(re.findall(r"`sglc ([\w-]+)", (DOCS / "command_line.md").read_text()))
    actions = cli.parser()._subparsers._group_actions  # type: ignore[union-attr]
    assert set(actions[0].choices) <= listed  # type: ignore[arg-type]


def test_included_notes_are_there() -> None:
    """The page on performance has the notes from where it says on, which is all sections."""
    notes = (ROOT / "bench" / "notes.md").read_text()
    (start,) = re.findall(r':start-after: "(.*)"', (DOCS / "performance.md").read_text())
    assert notes.count(start) == 1 and "## " not in notes[:notes.index(start)]


def test_docstrings_become_markup() -> None:
    restructured = runpy.run_path(str(DOCS / "docstrings.py"))["restructured"]
    docstring = "Do: `x` of **kw.\n\nmore text\nof it\n\na: one\n    and\nb_c: *two*\n"
    assert restructured(docstring) == (
        "Do: ``x`` of \\*\\*kw.\n\nmore text of it\n\n"
        "* **a**: one and\n* **b\\_c**: \\*two\\*")
    assert restructured("Is.\n\n- one\n  two\n- three") == "Is.\n\n* one two\n* three"
    assert restructured("") == ""


def test_files_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = re.findall(r"`((?:sglc|tests|bench|docs)/[\w/.]+)`", text)
    assert len(names) > 25
    for name in names:
        assert "my_" in name or "drop_empty" in name or (ROOT / name).exists(), name


# -- the examples and the build ----------------------------------------------------------------
def example_outputs(document: str) -> list[str]:
    """What the commands of the page on examples print, on the default model."""
    return [example_output(shlex.split(b.text)[2]) for b, _ in expected(document, "console")]


def example_output(script: str) -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(sys, "argv", [script])
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return said.getvalue().strip("\n")


def test_every_task_has_its_output() -> None:
    document = EXAMPLES.read_text()
    shown = re.findall(r"\{literalinclude\} \.\./examples/(\w+)\.py", document)
    assert set(shown) == {*TASKS, "json_decode"}
    ran = list(expected(document, "console"))
    assert [b.text for b, _ in ran] == [f"$ python examples/{name}.py\n" for name in shown]
    assert all(o is not None and o.text.strip() for _, o in ran)


@pytest.mark.slow
@pytest.mark.parametrize("block", list(expected(EXAMPLES.read_text(encoding="utf-8"), "console")),
                         ids=lambda pair: pair[0].text.split("/")[-1].strip())
def test_outputs_of_tasks(block: tuple[Block, Block]) -> None:
    """But for how many steps it took, which depends on how fast the machine is."""
    def text(printed: str) -> list[str]:
        lines = re.sub(r"\d+ model steps", "N model steps", printed).strip("\n").splitlines()
        return [line.rstrip() for line in lines]

    command, output = block
    assert text(example_output(shlex.split(command.text)[2])) == text(output.text)


@pytest.mark.slow
def test_the_build_has_no_warnings(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS),
         str(tmp_path / "html")], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "html" / "index.html").read_text()
    assert all(page.stem in index for page in DOCS.glob("*.md"))


if __name__ == "__main__":
    import tempfile

    server = serve()
    os.environ.update(apis(next(server).url))
    with sgl.Engine(kv_tokens=8192) as backend:
        sgl.set_default_backend(backend)
        for path in WITH_CODE:
            with tempfile.TemporaryDirectory() as place:
                rewrite(path, lambda text, place=place, path=path: outputs(
                    text, Path(place), path.stem.lower()))
        sgl.set_default_backend(None)
    rewrite(EXAMPLES, example_outputs, "console")
    server.close()
