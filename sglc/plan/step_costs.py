"""What a model step costs, and how many steps a batch takes: estimates from a simulation.

The simulation goes through the scheduler's steps in outline: decodes first, then prefill in the
plan's order within a budget of tokens.  Memory is taken to suffice, and the user's Python to take
no time.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from sglc.plan.prefix_tree import Node


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a step = `step` + `token` for each of its tokens + `context` for each token of
    KV that its sequences read."""

    step: float
    token: float
    context: float

    def seconds(self, steps: float, tokens: float, context: float) -> float:
        return self.step * steps + self.token * tokens + self.context * context


@dataclass(frozen=True, slots=True)
class Work:
    """A request.  prompt: the nodes that it needs before it can decode; those that are written
    are there.  decode: tokens that it decodes then; context: tokens that it reads; needs: calls
    it waits for, as (row, number); call: its own."""

    prompt: tuple[Node, ...]
    decode: int
    context: float
    call: tuple[int, int]
    needs: tuple[tuple[int, int], ...]
    rank: int


@dataclass(slots=True)
class Simulated:
    """Sums over a run: steps, tokens of all steps, KV tokens read; and the most held at once.

    spans: for each request the steps in which it started and ended.  held: the KV tokens held,
    as (step, tokens) wherever that changed.
    """

    steps: int = 0
    tokens: float = 0.0
    context: float = 0.0
    peak: float = 0.0
    spans: list[tuple[int, int]] = field(default_factory=list)
    held: list[tuple[int, float]] = field(default_factory=list)


class _Held:
    """The KV of running requests."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self._readers: dict[Node, int] = {}

    def start(self, work: Work) -> None:
        self.tokens += work.decode
        for node in work.prompt:
            count = self._readers[node] = self._readers.get(node, 0) + 1
            if count == 1:
                self.tokens += node.expected

    def end(self, work: Work) -> None:
        self.tokens -= work.decode
        for node in work.prompt:
            count = self._readers[node] = self._readers[node] - 1
            if not count:
                self.tokens -= node.expected


def simulate(works: Sequence[Work], budget: int, at_once: int) -> Simulated:
    """Run requests.  budget: tokens a step; at_once: requests that may run at a time."""
    out = Simulated(spans=[(0, 0)] * len(works))
    open_: dict[tuple[int, int], int] = {}  # requests of a call that have not ended
    for w in works:
        open_[w.call] = open_.get(w.call, 0) + 1
    waits: dict[tuple[int, int], list[int]] = {}
    missing = [0] * len(works)
    ready: list[tuple[int, int, int]] = []
    for i, w in enumerate(works):
        for need in w.needs:
            if need in open_:
                missing[i] += 1
                waits.setdefault(need, []).append(i)
        if not missing[i]:
            ready.append((w.call[0], w.rank, i))
    heapq.heapify(ready)
    computed: set[Node] = set()
    held = _Held()
    ends: list[tuple[int, int]] = []  # (step, request) of what decodes
    decoding, reading, now = 0, 0.0, 0
    current: tuple[int, float] | None = None  # a request that is prefilled, and what it lacks
    while ready or ends or current is not None:
        if not ready and current is None:  # nothing happens until the next end
            steps = max(1, ends[0][0] - now)
            now += steps
            out.tokens += steps * decoding
            out.context += steps * reading
            room = 0.0
        else:
            now += 1
            room = max(1.0, float(budget - decoding))
            out.tokens += decoding
            out.context += reading
        ended: list[int] = []
        while room > 0 and (current is not None or ready) and (
                current is not None or decoding + len(ended) < at_once):
            if current is None:
                i = heapq.heappop(ready)[2]
                new = [n for n in works[i].prompt if not n.written and n not in computed]
                computed.update(new)
                held.start(works[i])
                out.spans[i] = now, now
                current = i, sum([n.expected for n in new])
            i, lacks = current
            part = min(lacks, room)
            room -= max(part, 1.0)
            out.tokens += max(part, 1.0)
            out.context += works[i].context
            current = (i, lacks - part) if lacks > part else None
            if current is None:
                if works[i].decode > 0:
                    decoding += 1
                    reading += works[i].context
                    heapq.heappush(ends, (now + works[i].decode, i))
                else:
                    ended.append(i)
        out.peak = max(out.peak, held.tokens)
        out.held.append((now, held.tokens))
        while ends and ends[0][0] <= now:
            i = heapq.heappop(ends)[1]
            decoding -= 1
            reading -= works[i].context
            ended.append(i)
        for i in ended:
            held.end(works[i])
            out.spans[i] = out.spans[i][0], now
            call = works[i].call
            open_[call] -= 1
            if not open_[call]:
                for k in waits.get(call, ()):
                    missing[k] -= 1
                    if not missing[k]:
                        heapq.heappush(ready, (works[k].call[0], works[k].rank, k))
        if ended:
            out.held.append((now, held.tokens))
    out.steps = now
    return out
