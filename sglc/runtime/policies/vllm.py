"""vLLM's scheduling with automatic prefix caching: `vllm-apc`.

Imitated: vLLM V1, 0.23 (`vllm/v1/core/sched/scheduler.py`: `Scheduler.schedule`;
`kv_cache_manager.py`: `get_computed_blocks`, `allocate_slots`; `block_pool.py`).  What is kept:

- first come, first served; running sequences first, prefill in chunks beside decodes;
- only whole blocks of 16 tokens are shared, up to the token before the last; a block can be
  shared as soon as its tokens are issued, in the same step too;
- a request starts if the tokens of its first chunk get slots: nothing is kept free for output;
- when slots run out, the sequence that started last goes back to the head of the queue, to be
  computed again from what the cache still has of it, and nothing starts in that step;
- blocks are evicted least recently used first, the end of a sequence before its beginning.

What is not: memory that half-filled blocks waste, and that requests for prompt log-probabilities
read no cache (both would only cost it more).
"""

from __future__ import annotations

from typing import Any

from sglc.runtime.policies.base import Memory
from sglc.runtime.sequence import Sequence

BLOCK = 16


class VllmApc:
    """vLLM V1's default scheduler."""

    name = "vllm-apc"
    grain = BLOCK
    at_issue = True
    exact = False
    pins = False
    patient = True

    def place(self, seq: Sequence, serial: int) -> tuple[Any, ...]:
        return (0, -serial) if seq.retracted else (1, serial)

    def reorder(self, memory: Memory) -> list[tuple[Any, ...]] | None:
        return None

    def turns(self, prefilling: list[Sequence]) -> list[Sequence]:
        return prefilling

    def begin(self, memory: Memory) -> None:
        pass

    def fits(self, seq: Sequence, memory: Memory, budget: int) -> bool:
        return min(seq.target - seq.pos, budget) <= memory.available

    def started(self, seq: Sequence, known: int) -> None:
        pass

    def victim(self, running: list[Sequence]) -> Sequence:
        return running[-1]

    def retracted(self, seq: Sequence, running: list[Sequence]) -> None:
        pass

    def left(self, seq: Sequence) -> None:
        pass
