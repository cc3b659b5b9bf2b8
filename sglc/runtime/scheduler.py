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
        if decoding:
            step.add_decodes(decoding, self._take(len(decoding)))
        budget = self.max_tokens - len(decoding)
        if len(decoding) < len(self.running):
            for seq in sorted([s for s in self.running if not s.decoding], key=_rank):
                if budget <= 0:
                    break
                self.counters.cached += self._walk(seq)
                budget -= self._advance(seq, step, budget)
        self._admit(step, budget)
        return step

    def _admit(self, step: Step, budget: int) -> None:
        """Start waiting sequences while budget, memory and `max_running` allow."""
        reserved: int | None = None
        while self.waiting and budget > 0 and len(self.running) < self.max_running:
            seq = self.waiting[0][1]
            found = self._walk(seq)
            if self.running:
                if reserved is None:
                    reserved = sum(map(self._growth, self.running))
                growth = reserved
                if seq.retracted:  # it is not let in to be thrown out again
                    growth = sum([s.limit - s.count + s.target - s.pos for s in self.running
                                  if not s.decoding]
                                 + [s.limit - s.count for s in self.running if s.decoding])
                if seq.target - seq.pos + 1 + growth > self._available():
                    self.tree.unlock(seq.node)
                    seq.reset()
                    return
                reserved += self._growth(seq)
            heapq.heappop(self.waiting)
            self.running.append(seq)
            self.counters.cached += found
            budget -= self._advance(seq, step, budget)

    def _growth(self, seq: Sequence) -> int:
        """Slots that a running sequence will probably still take."""
        decode = min(seq.limit - seq.count, max(8, int(self._typical) - seq.count))
        return max(0, decode) if seq.decoding else max(0, decode) + seq.target - seq.pos

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
                return 0 if seq.retracted else end - pos
        return 0

    def _advance(self, seq: Sequence, step: Step, budget: int) -> int:
        """Add what a prefilling sequence computes in this step; the tokens taken."""
        step.members[seq] = None
        walked = seq.pos
        used = self._cached_hidden(seq, step, budget) if seq.want < walked else 0
        if walked < seq.target and seq.want >= walked and used < budget:
            n = min(seq.target - walked, budget - used, self._available())
            if n > 0:
                self._compute(seq, step, n)
                used += n
        if seq.want >= seq.target:
            if seq.limit:
                step.samples.append((seq, seq.last))
            else:
                step.done.append(seq)
        return used

    def _compute(self, seq: Sequence, step: Step, n: int) -> None:
        """The next `n` tokens, which the tree does not have: a row, and nodes for them."""
        tree = self.tree
        pos = seq.pos
        end = pos + n
        slots = self._take(n)
        key = seq.ids[pos:end]
        seq.place([slots], end)
        flat = step.add_row(key, pos, slots, seq.context[:end])
        step.prefilled += n
        seq.computed += max(0, min(end, seq.prompt_len) - pos)
        node = seq.node
        cut = seq.border - pos
        if 0 < cut < n:  # the first wanted hidden state gets a node of its own to be kept in
            node = tree.extend(node, key[:cut], slots[:cut], step.number, flat)
            step.keep.append((node, step.output(flat + cut - 1)))
            node = tree.extend(node, key[cut:], slots[cut:], step.number, flat + cut)
        else:
            node = tree.extend(node, key, slots, step.number, flat)
        seq.node = node
        if seq.want < end:
            for at in range(max(seq.want, pos), end):
                self._give(seq, step, at, step.output(flat + at - pos))
            step.keep.append((node, step.output(flat + n - 1)))

    def _cached_hidden(self, seq: Sequence, step: Step, budget: int) -> int:
        """Hidden states of positions whose KV is there: from the tree, from other rows of this
        step, or else from rows that compute them again.  Returns the tokens taken."""
        path = []
        node, end = seq.node, seq.pos
        while end > seq.want:
            path.append((node, end))
            end -= len(node.key)
            node = node.parent  # type: ignore[assignment]
        used = 0
        for node, end in reversed(path):
            first = max(seq.want, end - len(node.key))
            if node.step == step.number:
                flat = node.flat - end + len(node.key)
                for at in range(first, end):
                    self._give(seq, step, at, step.output(flat + at))
                step.keep.append((node, step.output(flat + end - 1)))
                continue
            known = node.hidden is not None
            used += self._recompute(seq, step, first, end - known, budget - used)
            if seq.want < end - known:
                break  # out of budget
            if known:
                self._give(seq, step, end - 1, step.known(node.hidden))
            else:
                step.keep.append((node, seq.last))
        return used

    def _recompute(self, seq: Sequence, step: Step, first: int, end: int, budget: int) -> int:
        """Rows for positions that have KV but no hidden state.  They write the same KV to the
        same slots again."""
        slots = seq.context[first:end].tolist()
        at = first
        used = 0
        while at < end:
            flat = step.recomputed.get(slots[at - first])
            if flat is None:
                if used == budget:
                    break
                stop = at + 1
                while stop < end and stop - at < budget - used \
                        and slots[stop - first] not in step.recomputed:
                    stop += 1
                flat = step.add_row(seq.ids[at:stop], at, seq.context[at:stop],
                                    seq.context[:stop])
                for i in range(at, stop):
                    step.recomputed[slots[i - first]] = flat + i - at
                used += stop - at
            self._give(seq, step, at, step.output(flat))
            at += 1
        step.recomputed_tokens += used
        return used

    def _give(self, seq: Sequence, step: Step, at: int, hidden: int) -> None:
        if at < seq.score_end:
            step.scores.append((seq, at, hidden))
        seq.want = at + 1
        seq.last = hidden

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
            if seq.accept(token, reports.get(i) if reports else None):
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
