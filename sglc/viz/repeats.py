"""Boxes that repeat: subtrees beside one another, of one shape and from the same lines of source,
shown once with how often they come ("x48").

Knows boxes; not how they look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sglc.viz.escape import TIMES
from sglc.viz.picture import Node, Piece

LEAST = 3  # as many are worth folding


def folded(nodes: Sequence[Node], least: int = LEAST) -> dict[Node, Node]:
    """The picture with each group of at least `least` like subtrees as its first one.

    The boxes that are left, in order, each with a copy that has `repeats` set and knows only
    other copies; where nothing repeats, these are all.
    """
    below: dict[Node | None, list[Node]] = {None: []}
    for n in nodes:
        below[n] = []
        below[n.parent].append(n)
    shapes = _shapes(nodes, below)
    stands: dict[Node, Node] = {}  # for each box the one that is shown
    times: dict[Node, int] = {}
    todo: list[tuple[list[Node], int]] = [(below[None], 1)]
    while todo:
        siblings, outer = todo.pop()
        groups: dict[int, list[Node]] = {}
        for n in siblings:
            groups.setdefault(shapes[n], []).append(n)
        for group in groups.values():
            first = group[0] if len(group) >= least else None
            for n in group:
                if first is None or n is first:
                    stands[n], times[n] = n, outer * (len(group) if first is n else 1)
                    todo.append((below[n], times[n]))
                else:
                    _stand_for(first, n, below, stands)
    shown = {n: n for n in nodes if n in times}
    shown = {n: replace(n, repeats=n.repeats * times[n]) for n in shown}

    def now(n: Node) -> Node:
        while n not in shown:  # what it stands for may itself be hidden in an outer group
            n = stands[n]
        return shown[n]

    for n, new in shown.items():
        new.parent = None if n.parent is None else now(n.parent)
        new.joins = list({now(j): (now(j), label) for j, label in n.joins}.values())
        new.sources = list(dict.fromkeys([now(s) for s in n.sources]))
        new.children = [shown[c] for c in below[n] if c in shown]
        new.pieces = _once([
            replace(p, sources=tuple(dict.fromkeys([now(s) for s in p.sources])))
            for p in n.pieces], least)
    return shown


def _once(pieces: list[Piece], least: int) -> list[Piece]:
    """Lists like `{a}, {a}, {a}` of one value, joined by one text, as one that says how often."""
    out: list[Piece] = []
    i = 0
    while i < len(pieces):
        first, j = pieces[i], i + 1
        while (first.kind == "value" and j + 1 < len(pieces) and pieces[j + 1] == first
               and pieces[j].kind == "constant" and pieces[j].text == pieces[i + 1].text):
            j += 2
        times = (j - i + 1) // 2
        if times >= least:
            out.append(replace(first, text=f"{first.text} {TIMES}{times}"))
            i = j
        else:
            out.append(first)
            i += 1
    return out


def _shapes(nodes: Sequence[Node], below: dict[Node | None, list[Node]]) -> dict[Node, int]:
    """A number for each box: the same for subtrees that look alike and come from one place."""
    numbers: dict[object, int] = {}
    out: dict[Node, int] = {}
    for n in reversed(nodes):  # children come after their parents
        title = n.title if n.kind in ("gen", "select", "host") else ""
        key = (n.kind, title, n.label, n.arms, tuple(dict.fromkeys(n.places)), n.spine,
               len(n.joins), tuple([out[c] for c in below[n]]))
        out[n] = numbers.setdefault(key, len(numbers))
    return out


def _stand_for(first: Node, other: Node, below: dict[Node | None, list[Node]],
               stands: dict[Node, Node]) -> None:
    """Note that `first` and what is below it stand for `other` and what is below that."""
    todo = [(first, other)]
    while todo:
        a, b = todo.pop()
        stands[b] = a
        todo += zip(below[a], below[b], strict=True)
