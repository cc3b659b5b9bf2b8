"""The scheduler: sequences between steps.

`prepare` gives the next step (`step_builder.py`), `complete` takes its outcome: tokens go to
their sequences, and who is over gives its KV to the cache.  While a step is under way, `assume`
stands in for its outcome, so that the one after it can be prepared.

The scheduler knows no model and no threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglc.runtime.counters import Counters
from sglc.runtime.following import follow
from sglc.runtime.kv_cache import KvCache
from sglc.runtime.policies.base import Policy
from sglc.runtime.queues import Queues
from sglc.runtime.sequence import Sequence
from sglc.runtime.step import Step
from sglc.runtime.step_builder import StepBuilder

if TYPE_CHECKING:
    from sglc.runtime.launch import Outcome

_PATIENCE = 0.125
_RECENT = 0.125  # what one step counts in `_breaks`


class Scheduler:
    """What runs, what waits, and their KV.

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
                 leave: Callable[[Sequence], None], policy: Policy, counters: Counters,
                 max_choice_tokens: int = 0, ride_tokens: int = 0) -> None:
        self.policy = policy
        self.counters = counters
        self.kv = KvCache(kv_tokens, policy.grain, pins=policy.pins)
        self.queues = Queues(self.kv, policy, counters)
        self.builder = StepBuilder(
            self.kv, self.queues, policy, counters, self.ended, max_tokens=max_tokens,
            max_running=max_running, max_choice_tokens=max_choice_tokens,
            ride_tokens=ride_tokens)
        self.patience = _PATIENCE
        self._breaks = 1.0  # that part: unknown, so none is in vain
        self._later: Step | None = None  # prepared ahead, its forerunner under way
        self._leave = leave

    @property
    def busy(self) -> bool:
        return bool(self.queues.running or self.queues.waiting)

    # -- the next step -----------------------------------------------------------------------

    def prepare(self, *, ahead: bool = False) -> Step | None:
        """The next step, its KV slots taken and its tokens in the tree; None if all is idle.

        ahead: another step is under way, whose outcome `assume` has stood in for; None also
        where only that outcome can make room.
        """
        while True:
            step = self.builder.build(ahead)
            self._later = step if ahead else None
            if step.busy:
                self.counters.peak = max(self.counters.peak, self.kv.in_use)
                return step
            self.kv.end_step(step.number)
            if ahead or not self.queues.running:
                return None
            # Sequences hold KV that others need, and none can move.
            self.queues.retract()

    def assume(self, step: Step, places: list[int]) -> bool:
        """Go on as if the step under way were over: what it draws does not end anything but by
        length.  False, and nothing is changed, if the next step needs its outcome.

        places: by sample, the number that its stand-in names (see `Sequence.assume`).
        """
        drawn = [(seq, place) for (seq, _), place in zip(step.samples, places, strict=True)
                 if not (seq.finished or seq in step.void)]
        if self._breaks > self.patience and any(seq.matcher is not None for seq, _ in drawn):
            return False
        if not all(seq.steady for seq, _ in drawn):
            return False
        on = [(seq, place) for seq, place in drawn if seq.count + 1 < seq.limit]
        members = {seq for seq, _ in drawn}
        others = [s for s in self.queues.running if s.decoding and s not in members]
        if len(on) + len(others) > self.kv.available:
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

    # -- outcomes ----------------------------------------------------------------------------

    def complete(self, step: Step, outcome: Outcome) -> None:
        """Take the outcome of a step."""
        hidden, tokens, reports = outcome.hidden, outcome.tokens, outcome.reports
        self.kv.end_step(step.number)
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
            elif seq.matcher is not None:
                ruled += 1
                broken += finished or seq.forced > forced
                counters.forced += seq.forced - forced
                if seq.forced > forced and seq in step.ahead and self._later is not None:
                    self._later.void.add(seq)
            if finished:
                if seq in step.ahead:  # the next step has a row of it, in vain
                    self.kv.discard_last(seq)
                self._finish(seq, hidden[k] if seq.own < seq.pos else None)
        if ruled:
            self._breaks += _RECENT * (broken / len(step.samples) - self._breaks)
        for seq in step.unshared:
            if not (seq.finished or seq.private):
                self.kv.share(seq)
        if step.samples or step.done:
            self.queues.running = [s for s in self.queues.running if not s.finished]

    def _finish(self, seq: Sequence, hidden: Any) -> None:
        self.policy.left(seq)
        if seq.private:
            self.kv.discard(seq)
            self.kv.tree.drop(seq.root)
        else:
            self.kv.give_back(seq, hidden)
        self.ended(seq)

    def ended(self, seq: Sequence) -> None:
        """A sequence is over: tell."""
        if seq.group is None or seq.group.last:
            self.kv.used(seq.request)
        self._leave(seq)

    # -- without an outcome ------------------------------------------------------------------

    def cancelled(self, error: Callable[[], Any]) -> None:
        """End every sequence whose request is cancelled, waiting or running."""
        queues = self.queues
        for seq in [s for s in queues.running if s.request.cancelled]:
            queues.running.remove(seq)
            seq.fail(error())
            self._finish(seq, None)
        for seq in queues.take_cancelled():
            seq.fail(error())
            self._drop_waiting(seq)

    def abort(self, steps: list[Step], error: Callable[[], Any]) -> None:
        """These steps failed: end their sequences, forget what they were to write.  Sequences
        without a part in them start over."""
        for step in steps:
            self._settle(step)
        members = {seq for step in steps for seq in step.members}
        rest = self.queues.running
        for seq in rest:
            self.policy.left(seq)
            self.kv.discard(seq)
        self.kv.fail_steps({step.number for step in steps})
        self.queues.running = []
        for seq in rest:
            seq.reset()
            if seq in members:
                seq.fail(error())
                self._drop_waiting(seq)
            else:
                self.queues.add(seq)

    def fail_all(self, error: Callable[[], Any]) -> None:
        """End everything."""
        for seq in self.queues.running:
            seq.fail(error())
            self._finish(seq, None)
        for seq in self.queues.clear():
            seq.fail(error())
            self._drop_waiting(seq)

    def _drop_waiting(self, seq: Sequence) -> None:
        """End a sequence that holds no KV."""
        if seq.private:
            self.kv.tree.drop(seq.root)
        self.ended(seq)
