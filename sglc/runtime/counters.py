"""What the scheduler counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Work done so far, in tokens unless it says otherwise; see `engine.Stats`."""

    prefill: int = 0
    cached: int = 0
    decode: int = 0
    forced: int = 0
    recomputed: int = 0
    passes: int = 0
    failed: int = 0  # steps
    requests: int = 0  # those that continue another one are not counted
    retractions: int = 0
    peak: int = 0
