"""Who runs and who waits: the scheduler's two queues of sequences, and the ways between them.

Who waits where and who is sent back are the policy's (`policies/`), for which this is the
`Memory`.  Steps are not known here.
"""

from __future__ import annotations

import heapq
from typing import Any

from sglc.runtime.counters import Counters
from sglc.runtime.kv_cache import KvCache
from sglc.runtime.policies.base import Policy
from sglc.runtime.sequence import Sequence


class Queues:
    """running: sequences that have KV, in the order of their start.  waiting: a heap of place,
    serial, sequence; they have none."""

    def __init__(self, kv: KvCache, policy: Policy, counters: Counters) -> None:
        self.running: list[Sequence] = []
        self.waiting: list[tuple[Any, int, Sequence]] = []
        self.tree = kv.tree
        self._kv = kv
        self._policy = policy
        self._counters = counters
        self._serial = 0

    @property
    def available(self) -> int:
        """Slots that can be had: free ones, and unlocked KV."""
        return self._kv.available

    def queue(self) -> list[Sequence]:
        """The sequences that wait, in order."""
        return [entry[2] for entry in sorted(self.waiting)]

    def add(self, seq: Sequence) -> None:
        """Let a sequence wait (the policy says where)."""
        self._serial += 1
        place = _place(seq, self._policy.place(seq, self._serial))
        heapq.heappush(self.waiting, (place, self._serial, seq))

    def reorder(self) -> None:
        """Give all that wait the places that the policy gives them now."""
        places = self._policy.reorder(self)
        if places is not None:
            self.waiting[:] = sorted([
                (_place(seq, place), serial, seq) for place, (_, serial, seq)
                in zip(places, sorted(self.waiting), strict=True)])

    def start_first(self) -> None:
        """Let the first that waits run."""
        self.running.append(heapq.heappop(self.waiting)[2])

    def retract(self) -> Sequence:
        """A running sequence, the policy says which, gives its KV to the cache and waits
        again."""
        if len(self.running) < 2:
            raise AssertionError("the only running sequence does not fit the pool")
        seq = self._policy.victim(self.running)
        self.running.remove(seq)
        self._policy.left(seq)
        self._kv.give_back(seq, None)
        seq.retracted = True
        seq.reset()
        self.add(seq)
        self._counters.retractions += 1
        self._policy.retracted(seq, self.running)
        return seq

    def take_cancelled(self) -> list[Sequence]:
        """Those that wait and whose request is cancelled; they wait no more."""
        over = [entry[2] for entry in self.waiting if entry[2].request.cancelled]
        if over:
            self.waiting = [entry for entry in self.waiting if not entry[2].request.cancelled]
            heapq.heapify(self.waiting)
        return over

    def clear(self) -> list[Sequence]:
        """All that wait, in order; nobody waits or runs any more."""
        waiting = self.queue()
        self.waiting, self.running = [], []
        return waiting


def _place(seq: Sequence, place: tuple[Any, ...]) -> tuple[Any, ...]:
    """The policy's place, behind those that go on where another request has just stopped."""
    return (not seq.request.continues or seq.retracted, *place)
