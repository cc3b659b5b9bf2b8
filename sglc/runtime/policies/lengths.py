"""How long generations get, learned while they run.

Generations with the same `max_tokens` are taken for alike.  Nothing is known here of memory.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque

KEPT = 256  # finished generations remembered of each kind
FEW = 4  # no quantile of fewer


class Lengths:
    """Lengths of finished generations, by their limit."""

    def __init__(self) -> None:
        self._sorted: dict[int, list[int]] = {}
        self._recent: dict[int, deque[int]] = {}

    def add(self, limit: int, count: int) -> None:
        """Note that a generation with this limit ended after `count` tokens."""
        lengths = self._sorted.setdefault(limit, [])
        recent = self._recent.setdefault(limit, deque())
        if len(recent) == KEPT:
            del lengths[bisect_right(lengths, recent.popleft()) - 1]
        recent.append(count)
        insort(lengths, count)

    def left(self, limit: int, count: int, quantile: float) -> int:
        """Tokens that a generation goes on for after `count`: this quantile of those that got
        further.  Where too few did, as many again as it has, or a guess at its beginning."""
        lengths = self._sorted.get(limit)
        if lengths is not None:
            longer = bisect_right(lengths, count)
            if len(lengths) - longer >= FEW:
                at = longer + int(quantile * (len(lengths) - longer))
                return min(lengths[min(at, len(lengths) - 1)], limit) - count
        return min(max(count, 32, min(256, limit // 4)), limit - count)
