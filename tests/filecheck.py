"""A small FileCheck: does a text hold lines in order, as the comments of a file demand?

    // CHECK: text            somewhere after the last match
    // CHECK-NEXT: text       in the line after the last match
    // CHECK-SAME: text       in the same line, after the last match
    // CHECK-NOT: text        nowhere between the matches around it

`{{regex}}` matches a regular expression, `[[NAME:regex]]` also remembers what it matched, and
`[[NAME]]` matches that again (names are in capitals).  Runs of blanks count as one blank.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIRECTIVE = re.compile(r"//\s*CHECK(?:-([A-Z]+))?:(.*)")
_PIECE = re.compile(r"\{\{(.+?)\}\}|\[\[([A-Z][A-Z0-9_]*)(?::(.+?))?\]\]")


class Directive(NamedTuple):
    """One demand: its kind ("" for CHECK), pattern, and line in the file (1-based)."""

    kind: str
    pattern: str
    line: int


class CheckFailure(AssertionError):
    """The text is not as demanded."""


def directives(source: str) -> list[Directive]:
    """The demands in a file, in order; ValueError for unknown kinds and misplaced ones."""
    out: list[Directive] = []
    for number, line in enumerate(source.split("\n"), 1):
        match = _DIRECTIVE.search(line)
        if match is None:
            continue
        kind = match[1] or ""
        if kind not in ("", "NEXT", "SAME", "NOT"):
            raise ValueError(f"line {number}: unknown directive CHECK-{kind}")
        if kind in ("NEXT", "SAME") and not any(d.kind != "NOT" for d in out):
            raise ValueError(f"line {number}: CHECK-{kind} needs a CHECK before it")
        out.append(Directive(kind, _blanks(match[2]), number))
    return out


def check(text: str, source: str) -> None:
    """Returns if `text` is as the comments in `source` demand; raises CheckFailure if not."""
    wanted = directives(source)
    if not wanted:
        raise ValueError("the file has no CHECK line")
    lines = [_blanks(line) for line in text.split("\n")]
    names: dict[str, str] = {}
    row, column = 0, 0  # where the last match ended
    forbidden: list[Directive] = []
    for demand in wanted:
        if demand.kind == "NOT":
            forbidden.append(demand)
            continue
        found = None
        if demand.kind == "SAME":
            places = [(row, column)]
        elif demand.kind == "NEXT":
            places = [(row + 1, 0)]
        else:
            places = [(row, column)] + [(r, 0) for r in range(row + 1, len(lines))]
        for r, c in places:
            if r < len(lines):
                found = _regex(demand, names).search(lines[r], c)
            if found:
                break
        if not found:
            near = "\n".join(lines[row:row + 5])
            raise CheckFailure(f"line {demand.line}: CHECK{'-' * bool(demand.kind)}{demand.kind}: "
                               f"{demand.pattern!r} not found from line {row + 1}:\n{near}\n\n"
                               f"in:\n{text}")
        _absent(forbidden, names, lines, (row, column), (r, found.start()))
        forbidden = []
        names.update({k: v for k, v in found.groupdict().items() if v is not None})
        row, column = r, found.end()
    _absent(forbidden, names, lines, (row, column), (len(lines) - 1, len(lines[-1])))


def _absent(forbidden: list[Directive], names: dict[str, str], lines: list[str],
            start: tuple[int, int], end: tuple[int, int]) -> None:
    for demand in forbidden:
        for row in range(start[0], end[0] + 1):
            first = start[1] if row == start[0] else 0
            last = end[1] if row == end[0] else len(lines[row])
            if _regex(demand, names).search(lines[row], first, last):
                raise CheckFailure(f"line {demand.line}: CHECK-NOT: {demand.pattern!r} is in "
                                   f"output line {row + 1}: {lines[row]}")


def _regex(demand: Directive, names: dict[str, str]) -> re.Pattern[str]:
    out, last = "", 0
    bound: set[str] = set()
    for piece in _PIECE.finditer(demand.pattern):
        out += re.escape(demand.pattern[last:piece.start()])
        regex, name, capture = piece.groups()
        if regex is not None:
            out += f"(?:{regex})"
        elif capture is not None:
            out += f"(?P<{name}>{capture})"
            bound.add(name)
        elif name in bound:
            out += f"(?P={name})"
        elif name in names:
            out += re.escape(names[name])
        else:
            raise ValueError(f"line {demand.line}: [[{name}]] has no value yet")
        last = piece.end()
    return re.compile(out + re.escape(demand.pattern[last:]))


def _blanks(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text).strip()
