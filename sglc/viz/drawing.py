"""One program's boxes and lines, placed: the parts of an SVG picture.

Solid lines continue a prompt, dashed ones carry a result into text.  Each shape has a tooltip
with its full text and its place in the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sglc.ir.module import Program
from sglc.viz.escape import TIMES, escaped, short
from sglc.viz.facts import Facts, readers
from sglc.viz.layout import GAP, Box, layout
from sglc.viz.picture import Edge, Node, edges
from sglc.viz.shapes import ARM, HIGH, Look, Point, body, piece_widths, room, text, width

ROW = 78.0  # from one row to the next
MARGIN = 24.0
HEAD = 46.0  # above a program's first row
_TITLE = 1500  # characters of a tooltip


class Drawing:
    """The shapes of one program, from `top` down to `bottom`, `wide` pixels wide.

    facts: tokens of the boxes, where they are known.  numbers: names for boxes, which become
    `data-` attributes of shapes that can be chosen.
    """

    def __init__(self, program: Program, nodes: Sequence[Node], top: float,
                 facts: Mapping[Node, Facts] | None = None,
                 numbers: Mapping[Node, int] | None = None) -> None:
        self.numbers = numbers
        read = readers(nodes)
        self.looks = {n: Look(None if facts is None else facts[n], read[n]) for n in nodes}
        self.boxes = layout(nodes, {n: width(n, self.looks[n]) for n in nodes})
        self.origin = Point(MARGIN + 26, top + MARGIN + HEAD)
        rows = 1 + max((b.row for b in self.boxes.values()), default=0)
        self.bottom = self.origin.y + rows * ROW
        self.wide = 2 * MARGIN + 40 + max((b.right for b in self.boxes.values()), default=0.0)
        names = [a.name for a in program.args]
        where = f"{program.loc}" if program.loc is not None else ""
        self.parts = [text(MARGIN, top + MARGIN + 8,
                           short(f"{program.name}({', '.join(names)})", 90), "head"),
                      text(MARGIN, top + MARGIN + 24, short(where, 110), "small")]
        self.lines: list[str] = []
        for edge in edges(nodes):
            if edge.kind == "use":
                self.use(edge)
            else:
                self.continued(edge)
        shapes = [self.shape(n) for n in nodes]
        self.parts += [*self.lines, *shapes]

    def edge(self, box: Box, right: bool = False) -> Point:
        """The middle of a box's left (right) side."""
        return Point(self.origin.x + (box.right if right else box.left),
                     self.origin.y + box.row * ROW + HIGH / 2)

    def shape(self, n: Node) -> str:
        at = self.edge(self.boxes[n])
        if n.parent is None and n.kind != "host":
            self.lines.append(f'<circle class="merge" cx="{at.x - 22:.1f}" cy="{at.y:.1f}" r="5">'
                              "<title>the empty prompt</title></circle>")
            self.line(Point(at.x - 22, at.y), at)
        wide = self.boxes[n].right - self.boxes[n].left - room(n)
        own = ""
        if self.numbers is not None:
            own = (f' class="node" data-node="{self.numbers[n]}" data-kind="{n.kind}" '
                   f'data-repeats="{n.repeats}" tabindex="-1" role="button"')
        times = ""
        if n.repeats > (1 if n.parent is None else n.parent.repeats):
            times = text(at.x + wide / 2, at.y - HIGH / 2 - 8, f"{TIMES}{n.repeats}", "times",
                         "middle")
        return (f"<g{own}><title>{escaped(_tooltip(n, self.looks[n]))}</title>"
                f"{body(n, at, wide, self.looks[n])}{times}</g>")

    def continued(self, edge: Edge) -> None:
        """A line along which a prompt goes on, with its label."""
        n, at = edge.target, self.edge(self.boxes[edge.target])
        start = self.edge(self.boxes[edge.source], right=True)
        start = Point(start.x - room(edge.source), start.y)
        self.line(start, at, self.named(edge))
        if edge.label:
            x = start.x + (8 if start.y == at.y else GAP / 2 + 4)
            y = (start if n.kind == "merge" else at).y - 5
            self.lines.append(text(x, y, short(edge.label, ARM), "small over"))

    def named(self, edge: Edge) -> str:
        """An edge's attributes."""
        if self.numbers is None:
            return ""
        return (f' data-edge="{edge.kind}" data-from="{self.numbers[edge.source]}" '
                f'data-to="{self.numbers[edge.target]}"')

    def line(self, a: Point, b: Point, attributes: str = "") -> None:
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
        self.lines.append(f'<path class="line" d="{path}"{attributes}/>')

    def use(self, edge: Edge) -> None:
        """A dashed curve from the box that makes a value to the middle of what uses it."""
        n, source = edge.target, edge.source
        at = self.edge(self.boxes[n])
        x = at.x + 12
        if n.pieces:
            left = at.x
            for piece, w in zip(n.pieces, piece_widths(n, self.looks[n]), strict=True):
                if source in piece.sources:
                    x = left + w / 2
                    break
                left += w
        end = Point(x, at.y)
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
        self.lines.append(f'<path class="uses" d="{path}"{self.named(edge)}/>')


def _tooltip(n: Node, look: Look) -> str:
    what = [n.title, n.detail] if n.kind != "text" else [
        "".join(f"{{{p.text}}}" if p.kind == "value" else p.text[:_TITLE] for p in n.pieces)]
    words = "\n".join(w for w in what if w)
    if len(words) > _TITLE:
        words = words[:_TITLE] + "…"
    if n.kind == "text":
        constant = sum(len(p.text) for p in n.pieces if p.kind == "constant")
        words += f"\n{constant} characters of constant text"
        if look.facts is not None and look.facts.tokens.value is not None:
            words += f", {look.facts.tokens} tokens"
    return "\n".join([words, *n.places[:8]])
