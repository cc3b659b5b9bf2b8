"""Wall times of two ways to run one workload, taken in turns, so that what else the machine does
meets both alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to run a workload."""

    mode: str
    policy: str

    def __str__(self) -> str:
        return f"{self.mode}, {self.policy}"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of both, pair by pair."""

    ours: Contender
    other: Contender
    seconds: tuple[tuple[float, float], ...]

    @property
    def ratio(self) -> float:
        """The median over pairs of the other's time to ours; above 1 where ours is faster."""
        return statistics.median([theirs / ours for ours, theirs in self.seconds])

    def as_dict(self) -> dict[str, Any]:
        return {"ours": str(self.ours), "other": str(self.other), "seconds": self.seconds,
                "ratio": self.ratio}

    def __str__(self) -> str:
        ours = statistics.median([a for a, _ in self.seconds])
        theirs = statistics.median([b for _, b in self.seconds])
        low, high = min(b / a for a, b in self.seconds), max(b / a for a, b in self.seconds)
        return (f"{len(self.seconds)} pairs: {self.ours} {ours:.3f} s, {self.other} "
                f"{theirs:.3f} s; ratio {self.ratio:.2f} ({low:.2f} to {high:.2f})")


def run_pairs(ours: Contender, other: Contender, n: int,
              seconds: Callable[[Contender], float]) -> Pairs:
    """Run both `n` times, each first in every second pair."""
    out = []
    for i in range(n):
        order = (ours, other) if i % 2 == 0 else (other, ours)
        taken = {c: seconds(c) for c in order}
        out.append((taken[ours], taken[other]))
    return Pairs(ours, other, tuple(out))
