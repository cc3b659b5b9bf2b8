"""What rides along with a request: prompts that its outcome may lead to, read beside it.

A model step costs about the same for one token as for many, up to the machine's balance of
arithmetic and memory.  While a request decides what comes next, the constants behind each of its
outcomes (`Request.rides`) are read in the same step; the call that the winner leads to finds them.
What the others had is cache that nobody holds, and the first to go.

A ride is all in one step or not at all: it never waits, keeps nobody waiting, evicts nothing, and
no answer depends on it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglc.runtime.request import Request, Result

if TYPE_CHECKING:
    from sglc.runtime.chunks import ChunkBuilder
    from sglc.runtime.kv_cache import KvCache
    from sglc.runtime.policies.base import Policy
    from sglc.runtime.queues import Queues
    from sglc.runtime.sequence import Sequence
    from sglc.runtime.step import Step


class Rides:
    """The rides of one request.

    tokens: that they add to the prompt, if they share nothing.  wasted: those of all but the
    longest, which are of no use if that one is wanted.
    """

    __slots__ = ("_make", "_request", "_rows", "tokens", "wasted")

    def __init__(self, request: Request, rows: list[array[int]],
                 make: Callable[[Request], Sequence]) -> None:
        sizes = list(map(len, rows))
        self.tokens = sum(sizes)
        self.wasted = self.tokens - max(sizes)
        self._request = request
        self._rows = rows
        self._make = make

    def __len__(self) -> int:
        return len(self._rows)

    def open(self) -> list[Sequence]:
        """New sequences for them."""
        host = self._request
        return [self._make(Request("ride", host.ids + row, _ignore, space=host.space,
                                   priority=host.priority, images=host.images))
                for row in self._rows]


def _ignore(result: Result) -> None:
    """Nobody waits for a ride."""


class RideBuilder:
    """Adds rides to steps.

    limit: rides join a step while the tokens of other requests in it, and what may be wasted,
    are no more than this; 0 takes none along.  The other limits: see `Scheduler`.
    """

    def __init__(self, kv: KvCache, queues: Queues, policy: Policy, chunks: ChunkBuilder, *,
                 max_tokens: int, max_running: int, limit: int) -> None:
        self.limit = limit
        self._kv = kv
        self._queues = queues
        self._policy = policy
        self._chunks = chunks
        self._max_tokens = max_tokens
        self._max_running = max_running
        self._hosts: dict[Sequence, None] = {}  # that run, and whose rides have not been read

    def started(self, seq: Sequence) -> None:
        """A sequence runs."""
        if seq.rides is not None and self.limit:
            self._hosts[seq] = None

    def board(self, step: Step) -> None:
        """Add what rides along with a step that is otherwise complete."""
        for seq in [s for s in self._hosts if s.finished or s.ending]:
            del self._hosts[seq]
        if not step.size or not self._hosts:
            return
        sizes: Counter[Any] = Counter()
        for row in step.rows:
            sizes[id(row.owner.request)] += row.n  # type: ignore[union-attr]
        begun = False
        for seq in list(self._hosts):
            if seq.pos < len(seq.request.ids) or not self._is_free(
                    seq, step, step.size - sizes[id(seq.request)]):
                continue
            if not begun:
                self._policy.begin(self._queues)
                begun = True
            del self._hosts[seq]
            for ride in seq.rides.open():  # type: ignore[union-attr]
                self._ride(ride, step)

    def _is_free(self, seq: Sequence, step: Step, others: int) -> bool:
        """Whether the rides of a sequence cost next to nothing beside `others` tokens."""
        rides = seq.rides
        assert rides is not None
        return (others + rides.wasted <= self.limit
                and rides.tokens <= min(self._max_tokens - step.size, self._kv.pool.free)
                and len(self._queues.running) + len(rides) <= self._max_running)

    def _ride(self, ride: Sequence, step: Step) -> None:
        """One ride, unless it is known or memory is promised to others."""
        self._kv.walk(ride, ride.target)
        known, room = ride.pos, self._max_tokens - step.size
        if known == ride.target or not self._policy.fits(ride, self._queues, room):
            self._kv.unwalk(ride)
            return
        self._queues.running.append(ride)
        self._chunks.advance(ride, step, room)
        self._policy.started(ride, known)
