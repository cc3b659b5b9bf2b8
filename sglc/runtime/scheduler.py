"""Continuous batching over the radix tree: which tokens the next step computes.

Decodes go first, then prefill in chunks, first of what is running, then of what waits, in the
order of (priority, arrival), within a budget of tokens a step.  A chunk enters the tree when it
is *issued*, so whoever comes later, even in the same step, finds it there; a sequence walks the
tree again before each chunk and computes only what nobody has.  Prefill thus computes every
distinct prefix once, as long as memory lasts.

When slots run out, unlocked leaves go; then the running sequence last in rank gives its KV back
and waits (a retraction; its tokens are kept).  The first in rank is never retracted, so some
sequence always advances.

The scheduler knows no model and no threads: `prepare` gives a step, `complete` takes its outcome.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from sglc.runtime.chunks import ChunkBuilder
from sglc.runtime.pool import SlotPool
from sglc.runtime.radix import RadixTree
from sglc.runtime.sequence import Sequence
from sglc.runtime.step import Step

_rank = attrgetter("rank")


@dataclass(slots=True)
class Counters:
    """Work done so far, in tokens unless it says otherwise; see `engine.Stats`."""

    prefill: int = 0
    cached: int = 0
    decode: int = 0
    forced: int = 0
    recomputed: int = 0
    passes: int = 0
    retractions: int = 0


class Scheduler:
    """Sequences, the tree and the pool, between steps.

    max_tokens: new tokens a step.  max_running: sequences at once.  leave: called with every
    sequence that has finished (`finished` is set), right after it gave back its KV.
    """

    def __init__(self, kv_tokens: int, max_tokens: int, max_running: int,
                 leave: Callable[[Sequence], None]) -> None:
        self.pool = SlotPool(kv_tokens)
        self.tree = RadixTree(self.pool)
        self.counters = Counters()
        self.max_tokens = max_tokens
        self.max_running = min(max_running, max_tokens)
        self.running: list[Sequence] = []
        self.waiting: list[tuple[tuple[tuple[int, ...], int], Sequence]] = []
        self._leave = leave
        self._chunks = ChunkBuilder(self.tree, self._available, self._take)
        self._typical = 32.0  # output tokens of a generation, a running mean
        self._steps = 0

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, seq: Sequence) -> None:
        """Queue a sequence (its `rank` decides where)."""
        heapq.heappush(self.waiting, (seq.rank, seq))

    # -- the next step -----------------------------------------------------------------------

    def prepare(self) -> Step | None:
        """The next step, its KV slots taken and its tokens in the tree; None if all is idle."""
        while True:
            step = self._build()
            if step.busy:
                return step
            if not self.running:
                return None
            # Sequences hold KV that others need, and none can move.
            self._retract_last()

    def _build(self) -> Step:
        self._steps += 1
        self.tree.clock += 1
        step = Step(self._steps, self.max_tokens)
        decoding = [s for s in self.running if s.decoding]
        while len(decoding) > self._available():
            victim = self._retract_last()
            if victim in decoding:
                decoding.remove(victim)
        budget = self.max_tokens - self._decode(step, decoding)
        if len(decoding) < len(self.running):
            for seq in sorted([s for s in self.running if not s.decoding], key=_rank):
                if budget <= 0:
                    break
                self.counters.cached += self._walk(seq)
                budget -= self._chunks.advance(seq, step, budget)
        self._admit(step, budget)
        return step

    def _decode(self, step: Step, decoding: list[Sequence]) -> int:
        """Rows of the running sequences: their last token, and what was forced before it, as far
        as there is room when each has one.  Returns the tokens taken."""
        if not decoding:
            return 0
        used = len(decoding)
        spare = min(self.max_tokens, self._available()) - used
        forced = [s for s in decoding if s.behind > 1]
        rest = [s for s in decoding if s.behind == 1] if forced else decoding
        if rest:
            step.add_decodes(rest, self._take(len(rest)))
        for seq in forced:
            more = min(seq.behind - 1, spare)
            step.add_run(seq, self._take(1 + more))
            spare -= more
            used += more
        return used

    def _admit(self, step: Step, budget: int) -> None:
        """Start waiting sequences while budget, memory and `max_running` allow."""
        while self.waiting and budget > 0 and len(self.running) < self.max_running:
            seq = self.waiting[0][1]
            found = self._walk(seq)
            if self.running and not self._fits(seq):
                self.tree.unlock(seq.node)
                seq.reset()
                return
            heapq.heappop(self.waiting)
            self.running.append(seq)
            self.counters.cached += found
            budget -= self._chunks.advance(seq, step, budget)

    def _fits(self, seq: Sequence) -> bool:
        """Whether there is memory for a waiting sequence beside the probable growth of those
        that run; beside their greatest growth if it was retracted before."""
        room = self._available() - (seq.target - seq.pos) - 1
        for other in self.running:
            if not other.decoding:
                room -= other.target - other.pos
        expected = max(8, int(self._typical))
        if not seq.retracted and room >= expected * len(self.running):
            return True
        for other in self.running:
            left = other.limit - other.count
            room -= left if seq.retracted else min(left, max(8, expected - other.count))
            if other.decoding:
                room -= other.behind - 1
        return room >= 0

    def _walk(self, seq: Sequence) -> int:
        """Follow the tree from where the sequence is, and lock what is found.  Returns the
        tokens found, none for a sequence that had them all before it was retracted."""
        pos, target = seq.pos, seq.target
        if pos < target:
            node, end, pieces = self.tree.match(seq.node, seq.ids, pos, target)
            if end > pos:
                self.tree.lock(node, seq.node)
                seq.node = node
                seq.place(pieces, end)
                return 0 if seq.retracted else max(0, min(end, seq.prompt_len) - pos)
        return 0

    # -- slots -------------------------------------------------------------------------------

    def _available(self) -> int:
        return self.pool.free + self.tree.cached

    def _take(self, n: int) -> np.ndarray:
        """`n` slots, of which there must be as many available."""
        if n > self.pool.free:
            self.tree.evict(n - self.pool.free)
        return self.pool.alloc(n)

    def _retract_last(self) -> Sequence:
        """The running sequence last in rank gives its KV to the cache and waits again."""
        if len(self.running) < 2:
            raise AssertionError("the only running sequence does not fit the pool")
        seq = max(self.running, key=_rank)
        self.running.remove(seq)
        self._let_go(seq, None)
        seq.retracted = True
        seq.reset()
        self.add(seq)
        self.counters.retractions += 1
        return seq

    def _let_go(self, seq: Sequence, hidden: Any) -> None:
        """Give the sequence's own KV to the tree, and unlock its path.  `hidden`: the hidden
        state of its last position, if it is at hand."""
        own, pos = seq.own, seq.pos
        node = seq.node
        if own < pos:
            end = self.tree.insert(node, seq.ids, own, pos, seq.context[own:pos].copy())
            if hidden is not None and end is not node and end.hidden is None:
                end.hidden = hidden.clone()
        self.tree.unlock(node)

    # -- outcomes ----------------------------------------------------------------------------

    def complete(self, step: Step, hidden: Any, tokens: list[int],
                 reports: dict[int, Any], scores: list[float]) -> None:
        """Take the outcome of a step.

        hidden: states of the step's outputs and, after them, of its cached ones, by row.
        tokens: one per `step.samples`.  reports: log-probabilities by index of a sample.
        scores: one per `step.scores`.
        """
        counters = self.counters
        counters.prefill += step.prefilled
        counters.decode += step.decoded
        counters.recomputed += step.recomputed_tokens
        counters.passes += step.size > 0
        for node, k in step.keep:
            if node.hidden is None and k >= 0 and node.parent is not None:
                node.hidden = hidden[k].clone()
        for (seq, _, _), value in zip(step.scores, scores, strict=True):
            seq.scores.append(value)
        for seq in step.done:
            seq.complete()
        for i, ((seq, k), token) in enumerate(zip(step.samples, tokens, strict=True)):
            forced = seq.forced
            finished = seq.accept(token, reports.get(i) if reports else None)
            counters.forced += seq.forced - forced
            if finished:
                self._typical += 0.05 * (seq.count - self._typical)
                self._finish(seq, hidden[k] if seq.own < seq.pos else None)
        for seq in step.done:
            self._finish(seq, None)
        self.running = [s for s in self.running if not s.finished]

    def _finish(self, seq: Sequence, hidden: Any) -> None:
        if seq.private:
            self.pool.release(seq.context[seq.own:seq.pos])
            self.tree.unlock(seq.node)
            self.tree.drop(seq.root)
        else:
            self._let_go(seq, hidden)
        self._leave(seq)

    def cancelled(self, error: Callable[[], Any]) -> None:
        """End every sequence whose request is cancelled, waiting or running."""
        for seq in [s for s in self.running if s.request.cancelled]:
            self.running.remove(seq)
            seq.fail(error())
            self._finish(seq, None)
        if any(s.request.cancelled for _, s in self.waiting):
            over = [s for _, s in self.waiting if s.request.cancelled]
            self.waiting = [entry for entry in self.waiting if not entry[1].request.cancelled]
            heapq.heapify(self.waiting)
            for seq in over:
                seq.fail(error())
                self._drop_waiting(seq)

    def abort(self, step: Step, error: Callable[[], Any]) -> None:
        """The step failed: end its sequences, forget what it was to write.  Sequences without
        a part in it start over."""
        for seq in self.running:
            self.pool.release(seq.context[seq.own:seq.pos])
            self.tree.unlock(seq.node)
        self.tree.remove_step(step.number)
        rest = self.running
        self.running = []
        for seq in rest:
            seq.reset()
            if seq in step.members:
                seq.fail(error())
                self._drop_waiting(seq)
            else:
                self.add(seq)

    def fail_all(self, error: Callable[[], Any]) -> None:
        """End everything."""
        for seq in self.running:
            seq.fail(error())
            self._finish(seq, None)
        waiting, self.waiting, self.running = self.waiting, [], []
        for _, seq in sorted(waiting):
            seq.fail(error())
            self._drop_waiting(seq)

    def _drop_waiting(self, seq: Sequence) -> None:
        """End a sequence that holds no KV."""
        if seq.private:
            self.tree.drop(seq.root)
        self._leave(seq)

    def flush(self) -> int:
        """Free all KV that no running sequence reads; returns how many tokens."""
        return self.tree.evict(self.tree.cached)

    # -- accounting --------------------------------------------------------------------------

    @property
    def in_use(self) -> int:
        """Slots of running sequences, in the tree or of their own."""
        return self.pool.total - self.pool.free - self.tree.cached

    def check(self) -> None:
        """Assert that every slot is accounted for exactly once, and every lock is owned."""
        self.tree.check()
        slots = [node.slots for node in self.tree.nodes()]
        slots += [s.context[s.own:s.pos] for s in self.running]
        self.pool.check(np.concatenate(slots) if slots else np.empty(0, dtype=np.int64))
        own = sum(s.pos - s.own for s in self.running)
        assert self.pool.free + self.tree.cached + self.tree.locked + own == self.pool.total
        assert self.in_use == self.tree.locked + own
        locks: dict[Any, int] = {}
        for seq in self.running:
            node, end = seq.node, seq.own
            while node.parent is not None:
                locks[node] = locks.get(node, 0) + 1
                end -= len(node.key)
                node = node.parent
            assert node is seq.root and end == 0
        for node in self.tree.nodes():
            assert node.locks == locks.get(node, 0)
