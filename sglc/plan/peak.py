"""How much KV the calls of a row can hold at once: a bound from which of them can run together.

Calls that wait for one another never run at once; where all calls of one part wait for all of
another, the larger part counts, elsewhere parts add up, with what they share counted once.  Parts
come from the series-parallel decomposition of the order (Valdes, Tarjan, Lawler 1982); where an
order has no such form, all its calls count.  Exact on trees of forks and joins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from sglc.plan.prefix_tree import Node


@dataclass(frozen=True, slots=True)
class Shape:
    """An order of calls: one call, or parts after one another, or side by side."""

    kind: Literal["call", "series", "parallel", "mixed"]
    calls: tuple[int, ...]
    parts: tuple[Shape, ...] = field(default=())


@lru_cache(maxsize=512)
def shape_of(needs: tuple[frozenset[int], ...]) -> Shape:
    """The shape of calls 0, 1, ..., each of which needs some before it."""
    before: list[int] = []  # bit sets, of all that a call waits for
    for direct in needs:
        bits = 0
        for i in direct:
            bits |= before[i] | 1 << i
        before.append(bits)
    related = before.copy()
    for i, bits in enumerate(before):
        for j in _bits(bits):
            related[j] |= 1 << i
    return _shape(tuple(range(len(needs))), related)


def _shape(calls: tuple[int, ...], related: Sequence[int]) -> Shape:
    if len(calls) == 1:
        return Shape("call", calls)
    inside = sum([1 << i for i in calls])
    for kind, neighbours in (("parallel", {i: related[i] & inside for i in calls}),
                             ("series", {i: inside & ~related[i] & ~(1 << i) for i in calls})):
        parts = _components(calls, neighbours)
        if len(parts) > 1:
            return Shape(kind, calls, tuple([_shape(p, related) for p in parts]))  # type: ignore[arg-type]
    return Shape("mixed", calls)


def _components(calls: tuple[int, ...], neighbours: dict[int, int]) -> list[tuple[int, ...]]:
    """The connected components of a graph."""
    left = set(calls)
    parts = []
    for first in calls:
        if first not in left:
            continue
        found, todo = 0, 1 << first
        while todo:
            i = (todo & -todo).bit_length() - 1
            found |= 1 << i
            todo = (todo | neighbours[i]) & ~found
        part = tuple(_bits(found))
        left.difference_update(part)
        parts.append(part)
    return parts


def _bits(bits: int) -> list[int]:
    out = []
    while bits:
        low = bits & -bits
        out.append(low.bit_length() - 1)
        bits ^= low
    return out


def peak(shape: Shape, paths: Sequence[set[Node]], size: Callable[[Node], float]) -> float:
    """The most that is held at once.  paths: by call, the nodes that it reads; size: of a node."""
    if shape.kind == "call":
        return sum(map(size, paths[shape.calls[0]]))
    if shape.kind == "mixed":
        return sum(map(size, _union(shape, paths)))
    if shape.kind == "series":
        return max([peak(part, paths, size) for part in shape.parts])
    seen: set[Node] = set()
    shared: set[Node] = set()
    for part in shape.parts:
        union = _union(part, paths)
        shared |= union & seen
        seen |= union
    if shared:
        paths = [path - shared for path in paths]
    return sum(map(size, shared)) + sum([peak(part, paths, size) for part in shape.parts])


def _union(shape: Shape, paths: Sequence[set[Node]]) -> set[Node]:
    return set().union(*[paths[i] for i in shape.calls])

