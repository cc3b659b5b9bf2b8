"""Where the boxes of a picture go: left to right by what they need, one row a chain.

Plain geometry on boxes with widths; what they mean and how they look is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sglc.viz.picture import Node

GAP = 34.0  # between a box and the next


@dataclass(frozen=True, slots=True)
class Box:
    """A placed box: left and right edge in pixels, and its row."""

    left: float
    right: float
    row: int


def layout(nodes: Sequence[Node], widths: Mapping[Node, float]) -> dict[Node, Box]:
    """A place for every box: right of all it continues, joins or uses; no two on one spot.

    nodes: in an order in which each comes after what it depends on.
    """
    left: dict[Node, float] = {}
    after: dict[Node, list[Node]] = {n: [] for n in nodes}  # a chain goes on with one of these
    for n in nodes:
        before = [b for b in (n.parent, *(j for j, _ in n.joins), *n.sources) if b is not None]
        left[n] = max((left[b] + widths[b] + GAP for b in before), default=0.0)
        if n.parent is not None:
            after[n.parent].append(n)
    rows: list[list[tuple[float, float]]] = []  # per row, the spans that are taken
    boxes: dict[Node, Box] = {}
    starts = [(n, 0) for n in reversed(nodes) if n.parent is None]
    while starts:
        first, lowest = starts.pop()
        chain = [first]
        while following := after[chain[-1]]:
            chain.append(_main(following))
        begin = left[first] - (GAP if first.parent is not None else 0)
        end = left[chain[-1]] + widths[chain[-1]]
        row = lowest
        while row < len(rows) and any(a < end and begin < b for a, b in rows[row]):
            row += 1
        while len(rows) <= row:
            rows.append([])
        rows[row].append((begin, end))
        for n in reversed(chain):
            boxes[n] = Box(left[n], left[n] + widths[n], row)
            main = _main(after[n]) if after[n] else None
            starts += [(c, row + 1) for c in reversed(after[n]) if c is not main]
    return boxes


def _main(following: list[Node]) -> Node:
    """Of the boxes that continue one: where its arms meet, else the one on the way to the end."""
    return (next((n for n in following if n.kind == "merge"), None)
            or next((n for n in following if n.spine), following[0]))
