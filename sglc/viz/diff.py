"""What differs between two lists of lines, in time n log n: patience diff (Bram Cohen).

Lines that are in both just once anchor the rest, where they are in the same order; between
anchors, what is equal at the ends counts as equal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal

Range = tuple[Literal["e", "r"], int, int, int, int]
"""Equal or replaced: lines i to j of the one, k to m of the other."""


def ranges(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[Range]:
    """The ranges of both lists, in order and complete; neighbours differ in kind."""
    out: list[Range] = []

    def add(kind: Literal["e", "r"], i: int, j: int, k: int, m: int) -> None:
        if i == j and k == m:
            return
        if out and out[-1][0] == kind:
            _, i, _, k, _ = out.pop()
        out.append((kind, i, j, k, m))

    last_i = last_k = 0
    for i, k in [*_anchors(before, after), (len(before), len(after))]:
        head = 0
        while (last_i + head < i and last_k + head < k
               and before[last_i + head] == after[last_k + head]):
            head += 1
        tail = 0
        while (i - tail > last_i + head and k - tail > last_k + head
               and before[i - tail - 1] == after[k - tail - 1]):
            tail += 1
        add("e", last_i, last_i + head, last_k, last_k + head)
        add("r", last_i + head, i - tail, last_k + head, k - tail)
        add("e", i - tail, i, k - tail, k)
        if i < len(before):
            add("e", i, i + 1, k, k + 1)
        last_i, last_k = i + 1, k + 1
    return out


def _anchors(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The longest list of lines that are in both once, in one order: patience sorting."""
    times, other = Counter(before), Counter(after)
    at = {line: k for k, line in enumerate(after)}
    pairs = [(i, at[line]) for i, line in enumerate(before)
             if times[line] == 1 and other.get(line) == 1]
    tops: list[int] = []  # of the piles
    piles: list[int] = []  # the pair on top of each
    links: list[int | None] = []  # the pair that comes before each
    for number, (_, k) in enumerate(pairs):
        pile = bisect_left(tops, k)
        links.append(piles[pile - 1] if pile else None)
        tops[pile:pile + 1] = [k]
        piles[pile:pile + 1] = [number]
    found: list[tuple[int, int]] = []
    number_: int | None = piles[-1] if piles else None
    while number_ is not None:
        found.append(pairs[number_])
        number_ = links[number_]
    return found[::-1]
