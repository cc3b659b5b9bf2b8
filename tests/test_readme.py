"""The README's code runs, and prints what the README says.

`python -m tests.test_readme` writes the printed IR into the README again after a change.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc import cli
from tests import documents
from tests.documents import expected, outputs, rewrite

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_python_blocks(engine: Any, tmp_path: Path) -> None:
    readme = README.read_text()
    sgl.set_default_backend(engine)
    try:
        printed = outputs(readme, tmp_path, "readme")
    finally:
        sgl.set_default_backend(None)
    wanted = list(expected(readme))
    assert len(printed) == len(wanted) and sum(o is not None for _, o in wanted) >= 4
    for text, (_, output) in zip(printed, wanted, strict=True):
        assert output is None or text.splitlines() == output.text.strip("\n").splitlines()
    assert printed[-1] == printed[-2] == printed[-3] == "True"
    assert re.fullmatch(r"[0-9.]+", printed[-4].replace("|", "")) and printed[-4].count("|") > 2


def test_the_first_program_is_short() -> None:
    first = next(expected(README.read_text()))[0]
    assert len(first.text.splitlines()) <= 12


def commands(starting: str) -> list[str]:
    return documents.commands(README.read_text(), starting)


@pytest.mark.parametrize("command", [*commands("sglc compile"), *commands("sglc viz")])
def test_compile_commands(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    words = shlex.split(command)
    assert cli.main(words[1:]) == 0
    written = [p.read_text() for p in tmp_path.iterdir() if p.is_file()]
    assert capsys.readouterr().out or any("<svg" in text for text in written)


@pytest.mark.parametrize("command", commands("sglc run "))
def test_run_commands(command: str, monkeypatch: pytest.MonkeyPatch,
                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(shlex.split(command)[1:]) == 0
    assert "Paris" in capsys.readouterr().out


@pytest.mark.parametrize("command", commands("sglc run-batch"))
def test_run_batch_commands(command: str, monkeypatch: pytest.MonkeyPatch,
                            tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    words = shlex.split(command)[1:]
    assert cli.main([*words, "--model", "hash", "--no-progress"]) == 0
    rows = len((tmp_path / words[2]).read_text().splitlines())
    assert len((tmp_path / words[4]).read_text().splitlines()) == rows


@pytest.mark.parametrize("command", [*commands("sglc serve"), *commands("sglc chat")])
def test_other_commands_have_the_flags_that_are_shown(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    assert cli.parser().parse_args(words).command == words[0]


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for command in commands("make"):
        assert re.search(rf"^{command.split()[1]}:", makefile, re.M), command
    for command in commands("pip"):
        for extra in re.findall(r"\[(\w+)\]", command):
            assert re.search(rf"^{extra} = \[", project, re.M), extra


def test_the_map_is_complete() -> None:
    """Every part of the package is in the README's map, and every file it names exists."""
    readme = README.read_text()
    table = readme[readme.index("## Map of the code"):readme.index("## Limits")]
    named = set(re.findall(r"`([\w/.]+)`", table))
    parts = {p.name + "/" if p.is_dir() else p.stem for p in (ROOT / "sglc").iterdir()
             if p.suffix == ".py" or any(p.glob("[a-z]*.py"))} - {"__init__"}
    assert parts <= named
    for name in re.findall(r"`((?:lang|trace|passes|runtime)/\w+\.py)`", table):
        assert (ROOT / "sglc" / name).exists(), name


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        rewrite(README, lambda readme: outputs(readme, Path(place), "readme"))
    sys.stdout.write(f"{README} written\n")
