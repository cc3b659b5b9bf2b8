"""One request while it runs: its ids, its page table, how far it is, and when it ends.

A sequence applies what needs its own history only (limits, EOS, stops, constraint).  It knows no
other sequence, no scheduler and no model, and not what its request is told in the end
(`results.py`).
"""

from __future__ import annotations

import time
from array import array

import numpy as np

from sglc.errors import EngineError, SglcError
from sglc.runtime.choices import Choices
from sglc.runtime.matcher import Matcher, Standing
from sglc.runtime.radix import Node
from sglc.runtime.request import FinishReason, Request, SamplingParams
from sglc.runtime.rides import Rides
from sglc.runtime.rules import Rule, Run
from sglc.runtime.sampler import Draw, Top
from sglc.runtime.stops import StopMatch, StopWatcher

_NO_DRAW = Draw(SamplingParams())  # of sequences that never sample
_SLACK = 64  # room for generated tokens in a new page table


class Sequence:
    """The running state of one request.

    Its KV covers positions `0 .. pos - 1`, in the slots `context[:pos]`.  The first `own` of them
    belong to the tree (the path to `node`, which is locked), the rest to the sequence alone.
    While it is not `decoding`, the KV of `ids[:target]` is being made, and hidden states are
    wanted of the positions `want .. target - 1`; those below `score_end` score the next id.
    While it is decoding, `ids[pos:]` have no KV yet: the last token, and forced ones before it.
    """

    __slots__ = ("arrival", "border", "bound", "computed", "context", "count", "decoding", "draw",
                 "end_ids", "ending", "error", "finished", "forced", "group", "ids", "jumps",
                 "known", "last", "limit", "match", "matched", "matcher", "node", "number", "own",
                 "pos", "private", "prompt_len", "rank", "reason", "reports", "request",
                 "retracted", "rides", "root", "sampled_at", "score_end", "scores", "started",
                 "target", "tight", "want", "watcher")

    def __init__(self, request: Request, arrival: int, *, ids: array[int], root: Node,
                 private: bool, target: int, want: int, score_end: int, limit: int) -> None:
        self.request = request
        self.arrival = arrival
        self.started = 0.0  # `perf_counter()` when it was first taken into a step
        self.rank = (request.priority, arrival)  # smaller goes first
        self.group: Choices | None = None  # with other choices of its request, ...
        self.number = 0  # ... and which choice it is
        self.rides: Rides | None = None  # what may be read beside it
        self.root = self.node = root
        self.private = private  # the root is this sequence's own
        self.ids = ids
        self.prompt_len = len(ids)
        self.target = target
        self.want = want
        self.border = want + 1  # where the tree gets a node end, for its hidden state
        self.score_end = score_end
        self.pos = self.own = 0
        self.context = np.empty(target + min(limit, _SLACK), dtype=np.int64)
        self.known = 0  # slots that a device's page table has (see `PagedSequence`)
        self.last = 0  # the hidden state (as a step names it) of the last position in reach
        self.limit = limit  # of new tokens
        self.bound = limit  # of new tokens, for admission
        self.tight = True  # whether it is likely to need nearly as many
        self.count = 0  # new tokens so far, sampled or forced
        self.forced = 0  # new tokens that were not sampled
        self.sampled_at = -1  # the position of the token that was sampled last
        self.computed = 0  # prompt tokens whose KV this sequence made
        self.decoding = False
        self.ending = False  # with the step under way it will be finished
        self.retracted = False
        self.finished = False
        self.reason: FinishReason = "stop"
        self.matched: str | int | None = None
        self.match: StopMatch | None = None
        self.error: SglcError | None = None
        self.scores: list[float] = []
        self.reports: list[tuple[float, Top]] = []
        # Set by `configure` for those that sample:
        self.end_ids: frozenset[int] = frozenset()
        self.draw = _NO_DRAW
        self.watcher: StopWatcher | None = None
        self.matcher: Matcher | None = None  # of what is constrained
        self.jumps = False  # whether tokens without alternative are appended, not sampled

    def configure(self, draw: Draw, end_ids: frozenset[int],
                  watcher: StopWatcher | None) -> None:
        """Make it sample.  `end_ids` end it and are not kept."""
        self.draw = draw
        self.end_ids = end_ids
        self.watcher = watcher

    def constrain(self, rule: Rule, jumps: bool) -> None:
        """Bind what it samples.  `jumps`: tokens without alternative are appended, not sampled.
        It may be `finished` at once, if nothing is left to sample."""
        swift = (jumps and rule.swift and self.watcher is None and self.draw.tally is None
                 and not self.request.held)
        matcher = self.matcher = Matcher(rule, self.draw, jumps=jumps, swift=swift)
        self.jumps = jumps
        began, spent = time.perf_counter(), rule.clock.seconds
        run = None
        if swift:
            run = matcher.leap(None, self.ids, self.prompt_len, self.limit, self.end_ids)
        if run is not None:
            self._add_run(run, 0)
        else:
            standing = matcher.begin(self.ids, self.prompt_len)
            if standing == "open":
                self._jump()
            else:
                self._close(standing)
        if self.forced and not self.finished:
            self._refill()
        rule.clock.seconds = spent + time.perf_counter() - began  # parts of it counted themselves

    # -- page table --------------------------------------------------------------------------

    def place(self, pieces: list[np.ndarray], pos: int) -> None:
        """The tree's slots of positions `self.pos .. pos - 1`."""
        at = self.pos
        self._reserve(pos)
        for piece in pieces:
            end = at + len(piece)
            self.context[at:end] = piece
            at = end
        self.pos = self.own = pos

    def own_slots(self, slots: np.ndarray) -> np.ndarray:
        """Put the next positions into slots of their own; the page table up to there."""
        end = self.pos + len(slots)
        self._reserve(end)
        self.context[self.pos:end] = slots
        self.pos = end
        return self.context[:end]

    def own_slot(self, slot: int) -> np.ndarray:
        """The same for one position."""
        pos = self.pos
        context = self.context
        if pos == len(context):
            self._reserve(pos + 1)
            context = self.context
        context[pos] = slot
        self.pos = pos = pos + 1
        return context[:pos]

    def _reserve(self, n: int) -> None:
        if n > len(self.context):
            grown = np.empty(max(n, 2 * len(self.context)), dtype=np.int64)
            grown[:self.pos] = self.context[:self.pos]
            self.context = grown

    def reset(self) -> None:
        """Forget the KV (the caller has given it back); what was sampled and scored stays."""
        self.node = self.root
        self.pos = self.own = self.known = 0
        self.decoding = self.ending = False
        if self.count:
            self._refill()

    def _refill(self) -> None:
        """All tokens so far are to be read before the next one is sampled."""
        self.target = len(self.ids)
        self.want = self.target - 1
        self.border = self.target

    # -- progress ----------------------------------------------------------------------------

    @property
    def steady(self) -> bool:
        """Whether the next token can be drawn before the host knows this one."""
        draw = self.draw
        return draw.tally is None and (
            self.matcher is None or (draw.rule is not None and draw.rule.there))

    def assume(self, place: int) -> None:
        """Stand-in for a token that is still being drawn: the id -1 - `place`.  `settle` takes it
        back."""
        self.ids.append(-1 - place)
        self.decoding = True

    def settle(self) -> bool:
        """Take the stand-in back; whether a row has been issued for it."""
        if not (self.ids and self.ids[-1] < 0):
            return False
        self.ids.pop()
        return self.pos > len(self.ids)

    @property
    def behind(self) -> int:
        """Tokens that have no KV."""
        return len(self.ids) - self.pos

    @property
    def growth(self) -> int:
        """Slots that it may still take."""
        return max(self.target, self.prompt_len + self.bound - 1) - self.pos

    def accept(self, token: int, report: tuple[float, Top] | None = None,
               followed: bool = False) -> bool:
        """Take the token that was sampled, and those that must follow it; whether the sequence
        is finished.

        followed: `draw` is in the state behind it already, and another is to be drawn there.
        """
        if token < 0:
            return self.fail(self._impossible(token))
        self.sampled_at = len(self.ids)
        self.decoding = True
        if followed:
            return self._take(token, report, followed=True)
        matcher = self.matcher
        if matcher is not None and matcher.swift and token not in self.end_ids:
            run = matcher.leap(token, self.ids, self.prompt_len, self.limit - self.count - 1,
                               self.end_ids)
            if run is not None:
                if report is not None:
                    self.reports.append(report)
                return self._add_run(run, 1)
        return self._take(token, report) or (self.jumps and self._jump())

    def _add_run(self, run: Run, drawn: int) -> bool:
        """Count a run that was taken behind so many drawn tokens; whether the sequence is
        finished."""
        forced = len(run.tokens)
        self.forced += forced
        self.count += drawn + forced
        self.draw.index += drawn + forced
        return not run.end.open and self._finish("constraint")

    def _jump(self) -> bool:
        """Take the tokens that must come next; whether the sequence is finished."""
        matcher = self.matcher
        if matcher is None or not self.jumps or matcher.sure < 0:
            return False
        clock = matcher.rule.clock
        began, spent = time.perf_counter(), clock.seconds
        over = False
        while matcher.sure >= 0 and not over:
            self.forced += 1
            clock.jumps += 1
            over = self._take(matcher.sure, None)
        clock.seconds = spent + time.perf_counter() - began  # its parts counted themselves
        return over

    def _take(self, token: int, report: tuple[float, Top] | None, followed: bool = False) -> bool:
        """Add one token; whether the sequence is finished.  followed: see `accept`."""
        self.count += 1
        draw = self.draw
        draw.index += 1
        if token in self.end_ids and not (
                self.request.held and self.matcher.covers(token)):  # type: ignore[union-attr]
            self.matched = token
            named = token in self.request.sampling.stop_token_ids
            return self._finish("stop" if named else "eos")
        self.ids.append(token)
        if report is not None:
            self.reports.append(report)
        if draw.tally is not None:
            draw.tally.add(token)
        if self.watcher is not None:
            match = self.watcher.push(token)
            if match is not None:
                self.match = match
                self.matched = match.matched
                return self._finish("stop")
        if self.matcher is not None and not followed:
            standing = self.matcher.follow(token, self.ids, self.prompt_len)
            if standing != "open":
                return self._close(standing)
        if self.count >= self.limit:
            return self._finish("length")
        return False

    def _close(self, standing: Standing) -> bool:
        """Finish where the constraint lets nothing follow; always true."""
        if standing == "complete":
            return self._finish("constraint")
        return self.fail(self._impossible(-1))

    def _impossible(self, token: int) -> SglcError:
        if token == -1 and self.matcher is not None:
            return EngineError(
                "SGLC505", "no token continues the constrained text",
                why=f"after {self.count} tokens the constraint allows none that this tokenizer has",
                fixes=["loosen the regular expression or schema"])
        return EngineError("SGLC503", "the model gave no usable logits",
                           why="they are not numbers" if token == -2 else "all are -inf")

    def _finish(self, reason: FinishReason) -> bool:
        self.reason = reason
        self.finished = True
        return True

    def complete(self) -> None:
        """Finish a sequence that does not sample: its KV and scores are there."""
        self._finish("length" if self.request.kind == "generate" else "stop")

    def fail(self, error: SglcError) -> bool:
        """Finish with an error; always true."""
        self.error = error
        self.reason = "abort"
        self.finished = True
        return True
