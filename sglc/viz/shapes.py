"""The shape of one box of a picture as SVG: how wide, how high, and its outline and words.

Text is a bar, as wide as it is long and as thick as it is read often; model calls, branches, host
calls and joins each have a shape of their own, so that none is told by colour alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sglc.viz.escape import escaped, short, visible
from sglc.viz.facts import Facts
from sglc.viz.picture import Node, Piece

HIGH = 42.0  # a box
_CHAR = 6.7  # width of a character of the fixed-width font
_WIDE = 160.0  # of one piece of text; longer ones grow by _MORE whenever their length doubles
_MORE = 20.0
_PER_TOKEN = 4  # characters
_SHORT = 12  # characters of a piece that is never cut
_COUNTED = 40  # a text bar of this many characters says how long it is
_THIN, _THICKER, _THICK = 20.0, 5.0, 46.0  # a bar: with one reader, for each doubling, at most
_LABEL = 26  # characters of a label
_CUT = 400  # characters of a bar's text that are looked at
ARM = 14  # characters of the name of an arm


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Look:
    """What a box's size shows.  facts: None without tokens; readers: calls that read it."""

    facts: Facts | None = None
    readers: int = 1


def width(n: Node, look: Look) -> float:
    """How wide a box is, with the room that it needs on its right."""
    if n.kind == "text":
        return sum(piece_widths(n, look))
    if n.kind == "merge":
        return 14.0
    if n.kind == "branch":
        return max(52.0, 5.6 * len(short(n.title, _LABEL))) + room(n)
    return max(96.0, 40 + 7.2 * len(short(n.title, _LABEL)),
               36 + 5.3 * len(short(n.detail, _LABEL + 4)))


def room(n: Node) -> float:
    """What a branch needs on its right for the names of its arms."""
    return 6.0 * max((len(short(arm, ARM)) for arm in n.arms), default=0)


def piece_widths(n: Node, look: Look) -> list[float]:
    """The widths of a bar's pieces: by their tokens, where these are known."""
    out = []
    for piece in n.pieces:
        shown = piece.label or piece.text
        length: float = len(shown) + 2 * (piece.kind == "value")
        length += sum(c > "\u2e80" for c in shown[:_CUT])  # some are twice as wide
        if look.facts is not None and piece.ids is not None and piece.kind == "constant":
            length = max(min(length, _SHORT), min(length, _PER_TOKEN * len(piece.ids)))
        wide = 12 + _CHAR * length
        out.append(wide if wide <= _WIDE else _WIDE + _MORE * math.log2(wide / _WIDE))
    return out


def thickness(readers: int) -> float:
    """The height of a bar that so many calls read."""
    return min(_THICK, _THIN + _THICKER * math.log2(max(1, readers)))


def body(n: Node, at: Point, wide: float, look: Look) -> str:
    """The shape itself; `at` is the middle of its left side."""
    y = at.y - HIGH / 2
    if n.kind == "text":
        return _bar(n, at, look)
    if n.kind == "merge":
        return (f'<circle class="merge" cx="{at.x + wide / 2:.1f}" cy="{at.y:.1f}" r="6"/>'
                f'<path class="line" d="M{at.x:.1f},{at.y:.1f} h{wide:.1f}"/>')
    middle = at.x + wide / 2
    if n.kind == "branch":
        return (f'<path class="branch" d="M{at.x:.1f},{at.y:.1f} L{middle:.1f},{y:.1f} '
                f'L{at.x + wide:.1f},{at.y:.1f} L{middle:.1f},{y + HIGH:.1f} Z"/>'
                + text(middle, at.y + 4, "?", "name", "middle")
                + text(middle, y - 6, short(n.title, _LABEL), "small", "middle"))
    return (_stack(n, at, wide) + _outline(n, at, wide)
            + text(middle, at.y - 2 if n.detail else at.y + 4, short(n.title, _LABEL), "name",
                   "middle")
            + text(middle, at.y + 13, short(n.detail, _LABEL + 4), "small", "middle"))


def text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    """A line of text; nothing for an empty one."""
    if not words:
        return ""
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{end}>{escaped(words)}</text>'


def _bar(n: Node, at: Point, look: Look) -> str:
    high = thickness(look.readers)
    out, x = [], at.x
    for piece, w in zip(n.pieces, piece_widths(n, look), strict=True):
        out.append(f'<rect class="{piece.kind}" x="{x:.1f}" y="{at.y - high / 2:.1f}" '
                   f'width="{w:.1f}" height="{high:.1f}"/>')
        out.append(text(x + 5, at.y + 4, _fitting(_shown(piece), w - 9), "mono"))
        x += w
    return "".join(out) + text(at.x, at.y + max(high / 2 + 13, 26), _below(n, look), "small over")


def _below(n: Node, look: Look) -> str:
    """What stands below a bar: its length if it is long, and who reads it."""
    words = []
    if look.facts is not None and look.facts.tokens.value is not None:
        tokens = look.facts.tokens
        more = " + text of the run" if any(p.kind == "value" for p in n.pieces) else ""
        words.append(f"{'~ ' if tokens.mark == '~' and not more else ''}{tokens.value:,} tokens"
                     f"{more}")
    else:
        long = sum(len(p.text) for p in n.pieces if p.kind == "constant")
        words += [f"{long} characters"] * (long >= _COUNTED)
    words += [f"{look.readers} calls"] * (look.readers > 1)
    return short(" · ".join(words), 64)


def _outline(n: Node, at: Point, wide: float) -> str:
    """Rounded: gen; six corners: select; double sides: host call."""
    y, right = at.y - HIGH / 2, at.x + wide
    if n.kind == "select":
        return (f'<path class="select" d="M{at.x:.1f},{at.y:.1f} L{at.x + 12:.1f},{y:.1f} '
                f'H{right - 12:.1f} L{right:.1f},{at.y:.1f} L{right - 12:.1f},{y + HIGH:.1f} '
                f'H{at.x + 12:.1f} Z"/>')
    round_ = 16 if n.kind == "gen" else 2
    box = (f'<rect class="{n.kind}" x="{at.x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
           f'height="{HIGH:.0f}" rx="{round_}"/>')
    if n.kind == "host":
        box += (f'<path class="host" d="M{at.x + 6:.1f},{y:.1f} v{HIGH:.0f} '
                f'M{right - 6:.1f},{y:.1f} v{HIGH:.0f}"/>')
    return box


def _stack(n: Node, at: Point, wide: float) -> str:
    """A second edge behind a box that stands for several."""
    if n.repeats < 2:
        return ""
    y, right = at.y - HIGH / 2, at.x + wide
    return (f'<path class="{n.kind} behind" d="M{at.x + 14:.1f},{y - 4:.1f} H{right - 8:.1f} '
            f'Q{right + 4:.1f},{y - 4:.1f} {right + 4:.1f},{y + 12:.1f} V{y + HIGH - 12:.1f} '
            f'H{right - 8:.1f} V{y:.1f} H{at.x + 14:.1f} Z"/>')


def _fitting(words: str, wide: float) -> str:
    """As much of a text as there is room for."""
    room_, out = wide / _CHAR, 0.0
    for i, c in enumerate(words):
        out += 2 if c > "\u2e80" else 1
        if out > room_ + 0.5:
            return short(words, max(1, i))
    return words


def _shown(piece: Piece) -> str:
    words = f"{{{piece.text}}}" if piece.kind == "value" else piece.label or piece.text
    return visible(words[:_CUT].replace("\n", "⏎"))
