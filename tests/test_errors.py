"""What a diagnostic looks like: code, place, source with a caret, reason, effect, fixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglc import ir
from sglc.errors import CODES, Diagnostic, IRError, Place, SglcError, SglcWarning, excerpt, marked


def test_all_parts_in_order(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_text("def f(s):\n    if int(s['score']) > 7:\n        pass\n")
    d = Diagnostic("SGLC110", "a value is needed", Place(str(file), 2, 8), "it is generated",
                   "the graph ends here", ("use choices=", "use select"))
    assert str(d).splitlines() == [
        "SGLC110 a value is needed",
        f"  --> {file}:2:8",
        "  2 |     if int(s['score']) > 7:",
        "    |        ^",
        "  Why: it is generated",
        "  Effect: the graph ends here",
        "  Fix 1: use choices=",
        "  Fix 2: use select",
    ]
    for error in (SglcError("SGLC110", "a value is needed", place=d.place),
                  SglcWarning("SGLC110", "a value is needed", place=d.place)):
        assert str(error).startswith("SGLC110 a value is needed\n  --> ")
        assert "^" in str(error)
        assert error.args == ("SGLC110 a value is needed",)


@pytest.mark.parametrize("file", ["", "<text>", "<string>", "no/such/file.py", "\0", "."])
def test_no_source_no_excerpt(file: str) -> None:
    assert excerpt(Place(file, 3, 1)) == []
    assert str(Diagnostic("SGLC110", "x", Place(file, 3, 1))) == f"SGLC110 x\n  --> {file}:3:1"


@pytest.mark.parametrize("line", [0, -1, 2, 10**9])
def test_lines_that_the_file_lacks(tmp_path: Path, line: int) -> None:
    file = tmp_path / "a.py"
    file.write_text("x\n\n")
    assert excerpt(Place(str(file), line, 1)) == []


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(b"\xff\xfe\x00\x81\n" * 3)
    assert excerpt(Place(str(file), 2, 1)) == []


def test_the_file_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old = 1\n")
    assert excerpt(Place(str(file), 1, 1))[0] == "  1 | old = 1"
    file.write_text("newer = 22\n")
    assert excerpt(Place(str(file), 1, 1))[0] == "  1 | newer = 22"


@pytest.mark.parametrize(("source", "col", "shown"), [
    ("x = y", 5, ["  7 | x = y", "    |     ^"]),
    ("    x = y", 1, ["  7 |     x = y", "    |     ^"]),  # only the line was known
    ("\tx = y", 6, ["  7 | \tx = y", "    | \t    ^"]),
    ("日本 = y", 6, ["  7 | 日本 = y", "    |        ^"]),
    ("e\u0301 = y", 6, ["  7 | e\u0301 = y", "    |     ^"]),
    ("x", 99, ["  7 | x", "    |  ^"]),
    ("a\x1b[31mb", 3, ["  7 | a\ufffd[31mb", "    |   ^"]),
])
def test_the_caret(source: str, col: int, shown: list[str]) -> None:
    assert marked(source + "\n", 7, col) == shown


@pytest.mark.parametrize("col", [1, 50, 100, 400, 998])
def test_of_a_long_line_its_middle(col: int) -> None:
    source = "".join(chr(ord("a") + i % 26) for i in range(1000))
    line, caret = marked(source, 12, col)
    assert len(line) <= 103 and len(caret) <= 104
    assert line[caret.index("^")] == source[col - 1]


def test_every_code_has_a_title() -> None:
    assert list(CODES) == sorted(CODES)
    for title in CODES.values():
        assert title[0].islower() and not title.endswith(".") and len(title) < 90
    with pytest.raises(ValueError, match="unknown diagnostic code"):
        Diagnostic("SGLC999", "x")


def test_a_fault_in_ir_text_is_shown_once(tmp_path: Path) -> None:
    text = "program @f() {\n  %p0 = prompt.rot\n}\n"
    with pytest.raises(IRError) as inline:
        ir.parse(text)
    file = tmp_path / "a.sglir"
    file.write_text(text)
    with pytest.raises(IRError) as from_file:
        ir.parse(text, file=str(file))
    for error in (inline.value, from_file.value):
        assert str(error).count("2 |   %p0 = prompt.rot") == 1
        assert str(error).count("^") == 1
