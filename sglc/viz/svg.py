"""A program's prompt graph as one SVG file: text bars, calls, branches, left to right.

The file needs nothing else (no scripts, no fonts, no links), and whatever a program's texts
hold is escaped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sglc.ir.module import Module, Program
from sglc.viz.layout import GAP, Box, layout
from sglc.viz.picture import Node, Piece, picture

ROW = 74.0  # from one row to the next
HIGH = 40.0  # a box
MARGIN = 24.0
HEAD = 46.0  # above a program's first row
_CHAR = 6.7  # width of a character of the fixed-width font below
_WIDE = 160.0  # of one piece of text; longer ones grow by _MORE whenever their length doubles
_MORE = 20.0
_COUNTED = 40  # a text bar of this many characters says how many
_LABEL = 26  # characters of a label
_ARM = 14  # characters of the name of an arm
_TITLE = 1500  # characters of a tooltip

_STYLE = """
text { font: 12px Helvetica, Arial, sans-serif; fill: #1d2733 }
.mono { font: 11px Menlo, Consolas, 'DejaVu Sans Mono', monospace }
.name { font-weight: bold } .small { font-size: 10px; fill: #5a6775 }
.head { font-size: 15px; font-weight: bold }
.constant { fill: #dce7f3; stroke: #a9bdd3 } .special { fill: #e9e0f5; stroke: #bda9d8 }
.value { fill: #fff; stroke: #a9bdd3; stroke-dasharray: 3 2 }
.gen { fill: #ffe3b3; stroke: #d9a441 } .select { fill: #d5efcf; stroke: #7fb872 }
.branch { fill: #fbd5d5; stroke: #d08080 } .host { fill: #f3f3f3; stroke: #999 }
.other { fill: #f3f3f3; stroke: #999 } .merge { fill: #8795a5; stroke: none }
.line { fill: none; stroke: #8795a5; stroke-width: 1.6 }
.uses { fill: none; stroke: #d9a441; stroke-width: 1.2; stroke-dasharray: 4 3 }
"""
_LEGEND = (("constant", "constant text"), ("special", "control tokens, role"),
           ("value", "text known at run time"), ("gen", "gen"), ("select", "select"),
           ("branch", "branch"))
# What XML 1.0 cannot hold, and what would reorder the text around it.
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\u2027\u2030-\u2065\u2070-\ud7ff\ue000-\ufdcf"
                          "\ufdf0-\ufefe\uff00-\ufffd\U00010000-\U0001fffd]")


def svg(program: Module | Program) -> str:
    """The graph of a program, or of all programs of a module one below the other, as SVG text.

    Bars are appended text, as wide as it is long (up to a limit); boxes are model calls; a
    diamond is a branch.  Solid lines continue a prompt, dashed ones carry a result into text.
    Every shape has a tooltip with its full text and its place in the source.
    """
    programs = [program] if isinstance(program, Program) else list(program.programs.values())
    parts: list[str] = []
    top = wide = 0.0
    for p in programs:
        drawing = _Drawing(p, top)
        parts += drawing.parts
        top, wide = drawing.bottom, max(wide, drawing.wide)
    parts += _legend(top)
    wide = max(wide, 820.0)
    names = _escaped(", ".join(p.name for p in programs))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{top + 48:.0f}" '
            f'viewBox="0 0 {wide:.0f} {top + 48:.0f}" role="img">\n<title>{names}</title>\n'
            f"<style>{_STYLE}</style>\n"
            '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n")


@dataclass(frozen=True, slots=True)
class _Point:
    x: float
    y: float


class _Drawing:
    """The shapes of one program, from `top` down to `bottom`."""

    def __init__(self, program: Program, top: float) -> None:
        nodes = picture(program)
        self.boxes = layout(nodes, {n: _width(n) for n in nodes})
        self.origin = _Point(MARGIN + 26, top + MARGIN + HEAD)
        rows = 1 + max((b.row for b in self.boxes.values()), default=0)
        self.bottom = self.origin.y + rows * ROW
        self.wide = 2 * MARGIN + 40 + max((b.right for b in self.boxes.values()), default=0.0)
        names = [a.name for a in program.args]
        where = f"{program.loc}" if program.loc is not None else ""
        self.parts = [_text(MARGIN, top + MARGIN + 8,
                            _short(f"{program.name}({', '.join(names)})", 90), "head"),
                      _text(MARGIN, top + MARGIN + 24, _short(where, 110), "small")]
        self.lines: list[str] = []
        shapes = [self.shape(n) for n in nodes]
        self.parts += [*self.lines, *shapes]

    def edge(self, box: Box, right: bool = False) -> _Point:
        """The middle of a box's left (right) side."""
        return _Point(self.origin.x + (box.right if right else box.left),
                      self.origin.y + box.row * ROW + HIGH / 2)

    def shape(self, n: Node) -> str:
        at = self.edge(self.boxes[n])
        if n.parent is None and n.kind != "host":
            self.lines.append(f'<circle class="merge" cx="{at.x - 22:.1f}" cy="{at.y:.1f}" r="5">'
                              "<title>the empty prompt</title></circle>")
            self.line(_Point(at.x - 22, at.y), at)
        before = [] if n.kind == "merge" and n.joins else [(n.parent, n.label)]
        for other, label in [*before, *n.joins]:
            if other is not None:
                start = self.edge(self.boxes[other], right=True)
                start = _Point(start.x - _room(other), start.y)
                self.line(start, at)
                if label:
                    x = start.x + (8 if start.y == at.y else GAP / 2 + 4)
                    y = (start if n.kind == "merge" else at).y - 5
                    self.lines.append(_text(x, y, _short(label, _ARM), "small"))
        used: dict[tuple[Node, float], None] = {}
        x = at.x
        for piece in n.pieces:
            used.update(dict.fromkeys((s, x + _piece_width(piece) / 2) for s in piece.sources))
            x += _piece_width(piece)
        for source in () if n.pieces else n.sources:
            used[source, at.x + 12] = None
        for source, x in used:
            self.use(source, _Point(x, at.y))
        width = self.boxes[n].right - self.boxes[n].left - _room(n)
        return f"<g><title>{_escaped(_tooltip(n))}</title>{_body(n, at, width)}</g>"

    def line(self, a: _Point, b: _Point) -> None:
        """From a to b: straight on one row, else down right after a or just before b."""
        if a.y == b.y:
            path = f"M{a.x:.1f},{a.y:.1f} H{b.x:.1f}"
        else:
            turn = a.x + GAP / 2 if b.y > a.y else b.x - GAP / 2
            bend = min(8.0, abs(b.y - a.y) / 2)
            sign = 1 if b.y > a.y else -1
            path = (f"M{a.x:.1f},{a.y:.1f} H{turn - bend:.1f} Q{turn:.1f},{a.y:.1f} {turn:.1f},"
                    f"{a.y + sign * bend:.1f} V{b.y - sign * bend:.1f} Q{turn:.1f},{b.y:.1f} "
                    f"{turn + bend:.1f},{b.y:.1f} H{b.x:.1f}")
        self.lines.append(f'<path class="line" d="{path}"/>')

    def use(self, source: Node, end: _Point) -> None:
        """A dashed curve from the box that makes a value to the middle of what uses it."""
        start = self.edge(self.boxes[source], right=True)
        down = 1 if end.y > start.y else -1
        y = end.y - (HIGH / 2 - 7) * down
        if source.children:  # the prompt goes on to the right: pass above or below
            x, lane = start.x - 12, start.y + (HIGH / 2 + 14) * down
            path = (f"M{x:.1f},{start.y + HIGH / 2 * down:.1f} Q{x:.1f},{lane:.1f} {x + 14:.1f},"
                    f"{lane:.1f} H{end.x - 14:.1f} Q{end.x:.1f},{lane:.1f} {end.x:.1f},{y:.1f}")
        else:
            path = (f"M{start.x:.1f},{start.y:.1f} C{end.x:.1f},{start.y:.1f} "
                    f"{end.x:.1f},{start.y:.1f} {end.x:.1f},{y:.1f}")
        self.lines.append(f'<path class="uses" d="{path}"/>')


def _body(n: Node, at: _Point, width: float) -> str:
    """The shape itself; `at` is the middle of its left side."""
    y = at.y - HIGH / 2
    if n.kind == "text":
        out, x = [], at.x
        for piece in n.pieces:
            w = _piece_width(piece)
            out.append(f'<rect class="{piece.kind}" x="{x:.1f}" y="{y + 7:.1f}" '
                       f'width="{w:.1f}" height="{HIGH - 14:.0f}"/>')
            out.append(_text(x + 5, at.y + 4, _short(_shown(piece), int((w - 9) / _CHAR)), "mono"))
            x += w
        long = _constant(n)
        return "".join(out) + _text(at.x, y + HIGH + 6, f"{long} characters", "small") * (
            long >= _COUNTED)
    if n.kind == "merge":
        return (f'<circle class="merge" cx="{at.x + width / 2:.1f}" cy="{at.y:.1f}" r="6"/>'
                f'<path class="line" d="M{at.x:.1f},{at.y:.1f} h{width:.1f}"/>')
    middle = at.x + width / 2
    if n.kind == "branch":
        return (f'<path class="branch" d="M{at.x:.1f},{at.y:.1f} L{middle:.1f},{y:.1f} '
                f'L{at.x + width:.1f},{at.y:.1f} L{middle:.1f},{y + HIGH:.1f} Z"/>'
                + _text(middle, at.y + 4, "?", "name", "middle")
                + _text(middle, y - 6, _short(n.title, _LABEL), "small", "middle"))
    round_ = 12 if n.kind in ("gen", "select") else 3
    return (f'<rect class="{n.kind}" x="{at.x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="{HIGH:.0f}" rx="{round_}"/>'
            + _text(middle, at.y - 2 if n.detail else at.y + 4, _short(n.title, _LABEL), "name",
                    "middle")
            + _text(middle, at.y + 13, _short(n.detail, _LABEL + 4), "small", "middle"))


def _width(n: Node) -> float:
    if n.kind == "text":
        return sum(_piece_width(p) for p in n.pieces)
    if n.kind == "merge":
        return 14.0
    if n.kind == "branch":
        return max(52.0, 5.6 * len(_short(n.title, _LABEL))) + _room(n)
    return max(90.0, 24 + 7.2 * len(_short(n.title, _LABEL)),
               20 + 5.3 * len(_short(n.detail, _LABEL + 4)))


def _room(n: Node) -> float:
    """What a branch needs on its right for the names of its arms."""
    return 6.0 * max((len(_short(arm, _ARM)) for arm in n.arms), default=0)


def _piece_width(piece: Piece) -> float:
    shown = _shown(piece)
    wide = 12 + _CHAR * (len(shown) + sum(c > "\u2e80" for c in shown))  # some are twice as wide
    return wide if wide <= _WIDE else _WIDE + _MORE * math.log2(wide / _WIDE)


def _constant(n: Node) -> int:
    """How many characters of constant text a box appends."""
    return sum(len(p.text) for p in n.pieces if p.kind == "constant")


def _shown(piece: Piece) -> str:
    text = f"{{{piece.text}}}" if piece.kind == "value" else piece.label or piece.text
    return _visible(text.replace("\n", "⏎"))


def _tooltip(n: Node) -> str:
    what = [n.title, n.detail] if n.kind != "text" else [
        "".join(f"{{{p.text}}}" if p.kind == "value" else p.text for p in n.pieces),
        f"{_constant(n)} characters of constant text"]
    text = "\n".join(w for w in what if w)
    if len(text) > _TITLE:
        text = text[:_TITLE] + "…"
    return "\n".join([text, *n.places[:8]])


def _legend(top: float) -> list[str]:
    out, x, y = [], MARGIN, top + 24
    for kind, label in _LEGEND:
        out.append(f'<rect class="{kind}" x="{x:.1f}" y="{y - 10:.1f}" width="16" height="12" '
                   'rx="2"/>')
        out.append(_text(x + 22, y, label, "small"))
        x += 44 + 6 * len(label)
    return out


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    if not text:
        return ""
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{end}>{_escaped(text)}</text>'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[:max(length - 1, 0)] + "…"


def _visible(text: str) -> str:
    """Characters that XML cannot hold, or that hide or reorder others, as U+FFFD."""
    return _UNPRINTABLE.sub("�", text)


def _escaped(text: str) -> str:
    """Text for an element of an XML document, line breaks kept."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, safe)
    return "\n".join(_visible(line) for line in text.split("\n"))
