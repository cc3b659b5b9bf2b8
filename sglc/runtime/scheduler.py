"""Continuous batching over the radix tree: which tokens the next step computes.

Decodes go first, then prefill in chunks, first of what is running, then of what waits, within a
budget of tokens a step.  Under the planned policy a chunk enters the tree when it is *issued*,
so whoever comes later, even in the same step, finds it there; a sequence walks the tree again
before each chunk and computes only what nobody has.  Prefill thus computes every distinct
prefix once, as long as memory lasts.

When slots run out, unlocked leaves go; then a running sequence gives its KV back and waits (a
retraction; its tokens are kept).  Who waits where, who may start, who is sent back and how much
of what is known is used are the policy's (`policies/`).

The scheduler knows no model and no threads: `prepare` gives a step, `complete` takes its outcome.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sglc.runtime.chunks import ChunkBuilder
from sglc.runtime.counters import Counters
from sglc.runtime.following import follow
from sglc.runtime.pins import Pin
from sglc.runtime.policies.base import Policy
from sglc.runtime.pool import SlotPool
from sglc.runtime.radix import RadixTree
from sglc.runtime.request import Request
from sglc.runtime.rides import RideBuilder
from sglc.runtime.sequence import Sequence
from sglc.runtime.step import Step

if TYPE_CHECKING:
    from sglc.runtime.launch import Outcome

_PATIENCE = 0.125
_RECENT = 0.125  # what one step counts in `_breaks`


class Scheduler:
    """Sequences, the tree and the pool, between steps.

    max_tokens: new tokens a step.  max_running: sequences at once.  max_choice_tokens: to so many
    a step may grow, whatever the other two, so that all choices of a request are in it.
    ride_tokens: see `RideBuilder`.  leave: called with every sequence that has finished
    (`finished` is set), right after it gave back its KV. policy: a fresh one, for this scheduler
    alone.

    patience: the next step is prepared before constrained rows' tokens are known if at most this
    part of the rows drew a token that tokens without alternative follow, or that ended them,
    lately: such a row's part in the next step is in vain.
    """

    def __init__(self, kv_tokens: int, max_tokens: int, max_running: int,
                 leave: Callable[[Sequence], None], policy: Policy,
                 max_choice_tokens: int = 0, ride_tokens: int = 0) -> None:
        self.policy = policy
        self.pool = SlotPool(kv_tokens)
        self.tree = RadixTree(self.pool, policy.grain)
        self.counters = Counters()
        self.max_tokens = max_tokens
        self.max_running = min(max_running, max_tokens)
        self.max_choice_tokens = max_choice_tokens
        self.running: list[Sequence] = []
        self.waiting: list[tuple[Any, int, Sequence]] = []  # a heap: place, serial, sequence
        self._leave = leave
        self._chunks = ChunkBuilder(self.tree, policy, lambda: self.available, self._take)
        self._rides = RideBuilder(self, self._chunks, self._walk,
                                  ride_tokens if policy.exact else 0)
        self.patience = _PATIENCE
        self._breaks = 1.0  # that part: unknown, so none is in vain
        self._later: Step | None = None  # prepared ahead, its forerunner under way
        self._open: list[int] = []  # numbers of steps that are made or under way
        self._steps = 0
        self._serial = 0

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def _newest(self) -> int:
        """The last step whose failure would leave KV unwritten; -1 for none."""
        return self._open[-1] if self._open else -1

    def add(self, seq: Sequence) -> None:
        """Queue a sequence (the policy says where)."""
        self._serial += 1
        place = _place(seq, self.policy.place(seq, self._serial))
        heapq.heappush(self.waiting, (place, self._serial, seq))

    # -- the next step -----------------------------------------------------------------------

    def prepare(self, *, ahead: bool = False) -> Step | None:
        """The next step, its KV slots taken and its tokens in the tree; None if all is idle.

        ahead: another step is under way, whose outcome `assume` has stood in for; None also
        where only that outcome can make room.
        """
        while True:
            step = self._build(ahead)
            self._later = step if ahead else None
            if step.busy:
                self.counters.peak = max(self.counters.peak, self.in_use)
                return step
            self._open.remove(step.number)
            if ahead or not self.running:
                return None
            # Sequences hold KV that others need, and none can move.
            self._retract()

    def assume(self, step: Step, places: list[int]) -> bool:
        """Go on as if the step under way were over: what it draws does not end anything but by
        length.  False, and nothing is changed, if the next step needs its outcome.

        places: by sample, the number that its stand-in names (see `Sequence.assume`).
        """
        drawn = [(seq, place) for (seq, _), place in zip(step.samples, places, strict=True)
                 if not (seq.finished or seq in step.void)]
        if self._breaks > self.patience and any(seq.rule is not None for seq, _ in drawn):
            return False
        if not all(seq.steady for seq, _ in drawn):
            return False
        on = [(seq, place) for seq, place in drawn if seq.count + 1 < seq.limit]
        members = {seq for seq, _ in drawn}
        others = [s for s in self.running if s.decoding and s not in members]
        if len(on) + len(others) > self.available:
            return False
        for seq in [*members, *step.done]:
            seq.ending = True
        for seq, place in on:
            seq.ending = False
            seq.assume(place)
        return True

    def _settle(self, step: Step) -> None:
        """Take back what `assume` stood in for.  Who ends now has no more rows but those of the
        step that was prepared since."""
        for seq, _ in step.samples:
            if seq.settle():
                step.ahead.add(seq)

    def _build(self, ahead: bool) -> Step:
        self._steps += 1
        self._open.append(self._steps)
        self.tree.clock += 1
        step = Step(self._steps, max(self.max_tokens, self.max_choice_tokens))
        retractions = self.counters.retractions
        running = [s for s in self.running if not s.ending] if ahead else self.running
        decoding = [s for s in running if s.decoding]
        while len(decoding) > self.available:
            victim = self._retract()
            decoding = [s for s in decoding if s is not victim]
        budget = self.max_tokens - self._decode(step, decoding)
        joining: list[Sequence] = []
        if len(decoding) < len(running):
            for seq in self.policy.turns([s for s in running if not s.decoding]):
                if budget <= 0:
                    break
                if self.policy.exact:
                    self.counters.cached += self._walk(seq, seq.target)
                budget -= self._chunks.advance(seq, step, budget)
                joining += self._others(seq)
        if self.policy.patient and self.counters.retractions > retractions:
            for seq in joining:
                self.add(seq)
        elif joining or (self.waiting and budget > 0 and len(self.running) < self.max_running):
            self._admit(step, budget, joining)
        self._rides.board(step)
        return step

    def _decode(self, step: Step, decoding: list[Sequence]) -> int:
        """Rows of the running sequences: their last token, and what was forced before it, as far
        as there is room when each has one.  Returns the tokens taken."""
        if not decoding:
            return 0
        used = len(decoding)
        spare = min(self.max_tokens, self.available) - used
        forced = [s for s in decoding if s.jumps and s.behind > 1]
        rest = [s for s in decoding if not s.jumps or s.behind <= 1] if forced else decoding
        if rest:
            step.add_decodes(rest, self._take(len(rest)))
        for seq in forced:
            more = min(seq.behind - 1, spare)
            step.add_run(seq, self._take(1 + more))
            spare -= more
            used += more
        return used

    def _admit(self, step: Step, budget: int, joining: list[Sequence]) -> None:
        """Start waiting sequences while budget, memory and `max_running` allow, but first the
        `joining` choices."""
        policy, waiting = self.policy, self.waiting
        policy.begin(self)
        for seq in joining:
            budget -= self._join(seq, step, budget)
        places = policy.reorder(self)
        if places is not None:
            waiting[:] = sorted([(_place(seq, place), serial, seq) for place, (_, serial, seq)
                                 in zip(places, sorted(waiting), strict=True)])
        while waiting and budget > 0 and len(self.running) < self.max_running:
            seq = waiting[0][2]
            found = self._walk(seq, seq.target if policy.exact else seq.want)
            if self.running and not policy.fits(seq, self, budget):
                self.tree.unlock(seq.node)
                seq.reset()
                return
            heapq.heappop(waiting)
            known = seq.pos
            self.running.append(seq)
            seq.started = seq.started or perf_counter()
            self.counters.cached += found
            budget -= self._chunks.advance(seq, step, budget)
            policy.started(seq, known)
            self._rides.started(seq)
            for other in self._others(seq):
                budget -= self._join(other, step, budget)

    def _others(self, seq: Sequence) -> list[Sequence]:
        """The other choices of its request that need the model, when the prompt before them is
        read."""
        others = [] if seq.group is None else seq.group.others(seq.pos)
        for other in others:
            if other.finished:
                self.ended(other)
        return [other for other in others if not other.finished]

    def _join(self, seq: Sequence, step: Step, budget: int) -> int:
        """Start a choice in the step that reads the prompt it stands behind, if all of it fits,
        or let it wait.  Returns the tokens taken."""
        found = self._walk(seq, seq.target)
        known = seq.pos
        room = max(budget, self.max_choice_tokens - step.size)
        if (not self.max_choice_tokens and len(self.running) >= self.max_running) \
                or room <= seq.target - known or not self.policy.fits(seq, self, room):
            self.tree.unlock(seq.node)
            seq.reset()
            self.add(seq)
            return 0
        self.running.append(seq)
        self.counters.cached += found
        used = self._chunks.advance(seq, step, room)
        self.policy.started(seq, known)
        return used

    def _walk(self, seq: Sequence, end: int) -> int:
        """Follow the tree from where the sequence is, at most to `end`, and lock what is found.
        Returns the tokens found, none for a sequence that had them all before it was
        retracted."""
        pos = seq.pos
        if pos < end:
            node, end, pieces = self.tree.match(seq.node, seq.ids, pos, end)
            if end > pos:
                self.tree.lock(node, seq.node)
                seq.node = node
                seq.place(pieces, end)
                return 0 if seq.retracted else max(0, min(end, seq.prompt_len) - pos)
        return 0

    def queue(self) -> list[Sequence]:
        """The sequences that wait, in order."""
        return [entry[2] for entry in sorted(self.waiting)]

    # -- slots -------------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """Slots that can be had: free ones, and unlocked KV."""
        return self.pool.free + self.tree.cached

    def _take(self, n: int) -> np.ndarray:
        """`n` slots, of which there must be as many available."""
        if n > self.pool.free:
            self.tree.evict(n - self.pool.free)
        return self.pool.alloc(n)

    def _retract(self) -> Sequence:
        """A running sequence, the policy says which, gives its KV to the cache and waits
        again."""
        if len(self.running) < 2:
            raise AssertionError("the only running sequence does not fit the pool")
        seq = self.policy.victim(self.running)
        self.running.remove(seq)
        self.policy.left(seq)
        self._let_go(seq, None)
        seq.retracted = True
        seq.reset()
        self.add(seq)
        self.counters.retractions += 1
        self.policy.retracted(seq, self.running)
        return seq

    def _let_go(self, seq: Sequence, hidden: Any) -> None:
        """Give the sequence's own KV to the tree, and unlock its path.  `hidden`: the hidden
        state of its last position, if it is at hand.  What finished is held by its pins."""
        own, pos = seq.own, seq.pos
        end = node = seq.node
        if own < pos:
            end = self.tree.insert(node, seq.ids, own, pos, seq.context[own:pos].copy(),
                                   self._newest)
            if hidden is not None and end is not node and end.hidden is None:
                end.hidden = hidden.clone()
        if seq.finished and seq.request.pins and self.policy.pins and not seq.root.dropped:
            for pin, length in seq.request.pins:
                at = end
                if length is not None and seq.group is not None and seq.number != seq.group.lead:
                    continue  # held by the first choice
                if length is not None and length < pos:
                    at = self.tree.match(seq.root, seq.ids, 0, length)[0]
                self.tree.hold(at, pin)
        self.tree.unlock(node)

    def _share(self, seq: Sequence) -> None:
        """Give the tree what is computed of a running sequence's prompt; what the tree has already
        is read from there."""
        own = seq.own
        end = seq.pos - seq.pos % self.tree.grain
        if own == end:
            return
        node, known, pieces = self.tree.match(seq.node, seq.ids, own, end)
        seq.known = min(seq.known, own)
        if known > own:
            self.tree.lock(node, seq.node)
            self.pool.release(seq.context[own:known].copy())
            seq.context[own:known] = np.concatenate(pieces)
        if known < end:
            node = self.tree.extend(node, seq.ids[known:end], seq.context[known:end].copy(),
                                    until=self._newest)
        seq.node = node
        seq.own = end

    # -- outcomes ----------------------------------------------------------------------------

    def complete(self, step: Step, outcome: Outcome) -> None:
        """Take the outcome of a step."""
        hidden, tokens, reports = outcome.hidden, outcome.tokens, outcome.reports
        self._open.remove(step.number)
        self._settle(step)
        counters = self.counters
        counters.prefill += step.prefilled
        counters.decode += step.decoded
        counters.recomputed += step.recomputed_tokens
        counters.passes += step.size > 0
        for node, k in step.keep:
            if node.hidden is None and k >= 0 and node.parent is not None:
                node.hidden = hidden[k].clone()
        for (seq, _, _), value in zip(step.scores, outcome.scores, strict=True):
            seq.scores.append(value)
        for seq in step.done:
            if not seq.finished:
                seq.complete()
                self._finish(seq, None)
        states = outcome.states
        if states:
            follow(step, states)
        ruled = broken = 0
        for i, ((seq, k), token) in enumerate(zip(step.samples, tokens, strict=True)):
            if seq.finished:  # while the step was under way
                counters.decode -= 0 <= k < step.decoded
                continue
            if seq in step.void:
                continue
            forced = seq.forced
            followed = bool(states) and states[i] >= 0
            finished = seq.accept(token, reports.get(i) if reports else None, followed)
            if followed:
                ruled += 1
                broken += finished
            elif seq.rule is not None:
                ruled += 1
                broken += finished or seq.forced > forced
                counters.forced += seq.forced - forced
                if seq.forced > forced and seq in step.ahead and self._later is not None:
                    self._later.void.add(seq)
            if finished:
                if seq in step.ahead:  # the next step has a row of it, in vain
                    seq.pos -= 1
                    self.pool.release(seq.context[seq.pos:seq.pos + 1])
                self._finish(seq, hidden[k] if seq.own < seq.pos else None)
        if ruled:
            self._breaks += _RECENT * (broken / len(step.samples) - self._breaks)
        for seq in step.unshared:
            if not (seq.finished or seq.private):
                self._share(seq)
        if step.samples or step.done:
            self.running = [s for s in self.running if not s.finished]

    def _finish(self, seq: Sequence, hidden: Any) -> None:
        self.policy.left(seq)
        if seq.private:
            self.pool.release(seq.context[seq.own:seq.pos])
            self.tree.unlock(seq.node)
            self.tree.drop(seq.root)
        else:
            self._let_go(seq, hidden)
        self.ended(seq)

    def ended(self, seq: Sequence) -> None:
        """A sequence is over: tell."""
        if seq.group is None or seq.group.last:
            self.used(seq.request)
        self._leave(seq)

    def used(self, request: Request) -> None:
        """A request has ended, or never started: pins that count their uses may end with it."""
        for pin, _ in request.pins:
            if pin.uses is not None and not pin.closed:
                pin.uses -= 1
                if pin.uses <= 0:
                    self.tree.close(pin)

    def unpin(self, pin: Pin, *, free: bool) -> None:
        """End a pin; with `free`, what nobody else holds or reads is freed at once."""
        if not pin.closed:
            self.tree.close(pin, free=free)

    def cancelled(self, error: Callable[[], Any]) -> None:
        """End every sequence whose request is cancelled, waiting or running."""
        for seq in [s for s in self.running if s.request.cancelled]:
            self.running.remove(seq)
            seq.fail(error())
            self._finish(seq, None)
        over = [entry[2] for entry in self.waiting if entry[2].request.cancelled]
        if over:
            self.waiting = [entry for entry in self.waiting if not entry[2].request.cancelled]
            heapq.heapify(self.waiting)
            for seq in over:
                seq.fail(error())
                self._drop_waiting(seq)

    def abort(self, steps: list[Step], error: Callable[[], Any]) -> None:
        """These steps failed: end their sequences, forget what they were to write.  Sequences
        without a part in them start over."""
        for step in steps:
            self._settle(step)
        members = {seq for step in steps for seq in step.members}
        for seq in self.running:
            self.policy.left(seq)
            self.pool.release(seq.context[seq.own:seq.pos])
            self.tree.unlock(seq.node)
        failed = {step.number for step in steps}
        self.tree.remove_steps(failed)
        self._open = [number for number in self._open if number not in failed]
        rest = self.running
        self.running = []
        for seq in rest:
            seq.reset()
            if seq in members:
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
        for _, _, seq in sorted(waiting):
            seq.fail(error())
            self._drop_waiting(seq)

    def _drop_waiting(self, seq: Sequence) -> None:
        """End a sequence that holds no KV."""
        if seq.private:
            self.tree.drop(seq.root)
        self.ended(seq)

    def flush(self) -> int:
        """Free all KV that no running sequence reads; returns how many tokens."""
        return self.tree.evict(self.tree.cached)

    # -- accounting --------------------------------------------------------------------------

    @property
    def in_use(self) -> int:
        """Slots of running sequences, in the tree or of their own."""
        return self.pool.total - self.pool.free - self.tree.cached


def _place(seq: Sequence, place: tuple[Any, ...]) -> tuple[Any, ...]:
    """The policy's place, behind those that go on where another request has just stopped."""
    return (not seq.request.continues or seq.retracted, *place)
