"""Running a workload on a backend, and what it cost.

The counts are the engine's own; the lower bound comes from the sequences that it ended with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sglc.plan.lower_bound import LowerBound
from sglc.workloads.base import Rows

_WARM_ROWS = 2


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a batch from an empty cache.  Tokens, unless said otherwise.

    prefill: prompt positions computed; bound: the least there could be; cached: found; decode,
    forced, recomputed, retractions: as in the engine's `Stats`; steps: forward passes; kv: the
    pool's size; kv_peak: the most that running sequences held; working_set: what would hold
    everything; seconds: wall time; errors: rows that failed.
    """

    rows: int
    prefill: int
    cached: int
    decode: int
    forced: int
    recomputed: int
    steps: int
    bound: int
    retractions: int
    kv: int
    kv_peak: int
    working_set: int
    longest: int
    seconds: float
    errors: int

    @property
    def hit_rate(self) -> float:
        """The share of prompt positions that were found, 0 to 1."""
        asked = self.prefill + self.cached
        return self.cached / asked if asked else 0.0

    @property
    def ratio(self) -> float:
        """Prefill over its lower bound; 1 is perfect."""
        return self.prefill / self.bound if self.bound else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the ratios."""
        return {**asdict(self), "hit_rate": self.hit_rate, "ratio": self.ratio}


def warm(program: Any, rows: Rows, backend: Any, mode: str) -> None:
    """Run a few rows, so that compiling and first calls are not measured."""
    _run(program, rows[:_WARM_ROWS], backend, mode, "auto")


def measure(program: Any, rows: Rows, backend: Any, mode: str,
            threads: int | str = "auto") -> Measured:
    """Run all rows, greedy unless a gen says otherwise, and count.

    threads: of the eager mode, `num_threads` as in `run_batch`.
    """
    backend.flush_cache()
    backend.core.reset_peak()
    before = backend.stats()
    with backend.record() as recording:
        start = time.perf_counter()
        states = _run(program, rows, backend, mode, threads)
        seconds = time.perf_counter() - start
    after = backend.stats()
    bound: LowerBound = recording.lower_bound()

    def spent(counter: str) -> int:
        return int(getattr(after, counter) - getattr(before, counter))

    return Measured(
        rows=len(rows), prefill=spent("prefill_tokens"), cached=spent("cached_tokens"),
        decode=spent("decode_tokens"), forced=spent("forced_tokens"),
        recomputed=spent("recomputed_tokens"), steps=spent("forward_passes"),
        bound=bound.prefill, retractions=spent("retractions"), kv=after.kv_total,
        kv_peak=after.kv_peak, working_set=bound.positions, longest=bound.longest,
        seconds=seconds, errors=sum([s.error() is not None for s in states]))


def _run(program: Any, rows: Rows, backend: Any, mode: str, threads: int | str) -> Sequence[Any]:
    states: Sequence[Any] = program.run_batch(rows, backend=backend, mode=mode, seed=0,
                                              temperature=0, num_threads=threads)
    for state in states:
        state.error()  # waits for its end
    return states
