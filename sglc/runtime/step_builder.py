"""Continuous batching over the radix tree: which tokens the next step computes.

Decodes go first, then prefill in chunks, first of what is running, then of what waits, within a
budget of tokens a step.  Under the planned policy a chunk enters the tree when it is *issued*,
so whoever comes later, even in the same step, finds it there; a sequence walks the tree again
before each chunk and computes only what nobody has.  Prefill thus computes every distinct
prefix once, as long as memory lasts.

When slots run out, unlocked leaves go; then a running sequence gives its KV back and waits (a
retraction; its tokens are kept).  Who may start and how much of what is known is used are the
policy's (`policies/`).  What comes of a step is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from sglc.runtime.chunks import ChunkBuilder
from sglc.runtime.counters import Counters
from sglc.runtime.kv_cache import KvCache
from sglc.runtime.policies.base import Policy
from sglc.runtime.queues import Queues
from sglc.runtime.rides import RideBuilder
from sglc.runtime.sequence import Sequence
from sglc.runtime.step import Step


class StepBuilder:
    """Makes steps of the sequences in the queues; who starts, starts here.

    ended: called with choices that have finished without the model.  Limits: see `Scheduler`.
    """

    def __init__(self, kv: KvCache, queues: Queues, policy: Policy, counters: Counters,
                 ended: Callable[[Sequence], None], *, max_tokens: int, max_running: int,
                 max_choice_tokens: int, ride_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.max_running = min(max_running, max_tokens)
        self.max_choice_tokens = max_choice_tokens
        self._chunks = ChunkBuilder(kv, policy)
        self.rides = RideBuilder(
            kv, queues, policy, self._chunks, max_tokens=self.max_tokens,
            max_running=self.max_running, limit=ride_tokens if policy.exact else 0)
        self._kv = kv
        self._queues = queues
        self._policy = policy
        self._counters = counters
        self._ended = ended

    def build(self, ahead: bool) -> Step:
        """The next step, its KV slots taken and its tokens in the tree.  ahead: see
        `Scheduler.prepare`."""
        kv, queues, policy, counters = self._kv, self._queues, self._policy, self._counters
        step = Step(kv.begin_step(), max(self.max_tokens, self.max_choice_tokens))
        retractions = counters.retractions
        running = [s for s in queues.running if not s.ending] if ahead else queues.running
        decoding = [s for s in running if s.decoding]
        while len(decoding) > kv.available:
            victim = queues.retract()
            decoding = [s for s in decoding if s is not victim]
        budget = self.max_tokens - self._decode(step, decoding)
        joining: list[Sequence] = []
        if len(decoding) < len(running):
            for seq in policy.turns([s for s in running if not s.decoding]):
                if budget <= 0:
                    break
                if policy.exact:
                    counters.cached += kv.walk(seq, seq.target)
                budget -= self._chunks.advance(seq, step, budget)
                joining += self._others(seq)
        if policy.patient and counters.retractions > retractions:
            for seq in joining:
                queues.add(seq)
        elif joining or (queues.waiting and budget > 0
                         and len(queues.running) < self.max_running):
            self._admit(step, budget, joining)
        self.rides.board(step)
        return step

    def _decode(self, step: Step, decoding: list[Sequence]) -> int:
        """Rows of the running sequences: their last token, and what was forced before it, as far
        as there is room when each has one.  Returns the tokens taken."""
        if not decoding:
            return 0
        kv = self._kv
        used = len(decoding)
        spare = min(self.max_tokens, kv.available) - used
        forced = [s for s in decoding if s.jumps and s.behind > 1]
        rest = [s for s in decoding if not s.jumps or s.behind <= 1] if forced else decoding
        if rest:
            step.add_decodes(rest, kv.take(len(rest)))
        for seq in forced:
            more = min(seq.behind - 1, spare)
            step.add_run(seq, kv.take(1 + more))
            spare -= more
            used += more
        return used

    def _admit(self, step: Step, budget: int, joining: list[Sequence]) -> None:
        """Start waiting sequences while budget, memory and `max_running` allow, but first the
        `joining` choices."""
        kv, queues, policy = self._kv, self._queues, self._policy
        policy.begin(queues)
        for seq in joining:
            budget -= self._join(seq, step, budget)
        queues.reorder()
        while queues.waiting and budget > 0 and len(queues.running) < self.max_running:
            seq = queues.waiting[0][2]
            found = kv.walk(seq, seq.target if policy.exact else seq.want)
            if queues.running and not policy.fits(seq, queues, budget):
                kv.unwalk(seq)
                return
            queues.start_first()
            known = seq.pos
            seq.started = seq.started or perf_counter()
            self._counters.cached += found
            budget -= self._chunks.advance(seq, step, budget)
            policy.started(seq, known)
            self.rides.started(seq)
            for other in self._others(seq):
                budget -= self._join(other, step, budget)

    def _others(self, seq: Sequence) -> list[Sequence]:
        """The other choices of its request that need the model, when the prompt before them is
        read."""
        others = [] if seq.group is None else seq.group.others(seq.pos)
        for other in others:
            if other.finished:
                self._ended(other)
        return [other for other in others if not other.finished]

    def _join(self, seq: Sequence, step: Step, budget: int) -> int:
        """Start a choice in the step that reads the prompt it stands behind, if all of it fits,
        or let it wait.  Returns the tokens taken."""
        kv, queues = self._kv, self._queues
        found = kv.walk(seq, seq.target)
        known = seq.pos
        room = max(budget, self.max_choice_tokens - step.size)
        if (not self.max_choice_tokens and len(queues.running) >= self.max_running) \
                or room <= seq.target - known or not self._policy.fits(seq, queues, room):
            kv.unwalk(seq)
            queues.add(seq)
            return 0
        queues.running.append(seq)
        self._counters.cached += found
        used = self._chunks.advance(seq, step, room)
        self._policy.started(seq, known)
        return used
