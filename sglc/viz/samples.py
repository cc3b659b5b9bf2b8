"""What a backend was doing at a moment, taken while something runs.

Reads counters by the names of `runtime/engine.py`; of a backend without counters, only time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """seconds: since the first.  done: rows that have ended.  running, waiting: requests.
    generated, prefill, cached: tokens so far, since the first.  in_use, kept, total: KV tokens
    (None where the backend has no counters)."""

    seconds: float
    done: int = 0
    running: int = 0
    waiting: int = 0
    generated: int = 0
    prefill: int = 0
    cached: int = 0
    in_use: int | None = None
    kept: int = 0
    total: int = 0


class Sampler:
    """Takes samples of one backend."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self._start = time.perf_counter()
        self._first = self._stats()
        self.samples: list[Sample] = []

    def take(self, done: int = 0) -> Sample:
        """A sample of now; kept in `samples`."""
        seconds, now, first = time.perf_counter() - self._start, self._stats(), self._first
        if now is None or first is None:
            sample = Sample(seconds, done)
        else:
            running, waiting = self.backend.core.load() if hasattr(
                self.backend, "core") else (0, 0)
            sample = Sample(
                seconds, done, running, waiting,
                now.decode_tokens + now.forced_tokens
                - first.decode_tokens - first.forced_tokens,
                now.prefill_tokens - first.prefill_tokens,
                now.cached_tokens - first.cached_tokens,
                now.kv_in_use, now.kv_cached, now.kv_total)
        self.samples.append(sample)
        return sample

    def _stats(self) -> Any:
        """The backend's counters, None if it has not these."""
        stats = getattr(self.backend, "stats", None)
        found = None if stats is None else stats()
        return found if hasattr(found, "kv_in_use") else None
