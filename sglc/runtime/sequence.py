"""One request while it runs: its ids, its page table, how far it is, and how it ends.

A sequence applies the rules that need its own history only (limits, EOS, stops, constraint,
scores).  It knows no other sequence, no scheduler and no model.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence as Ids
from typing import Any

import numpy as np

from sglc.errors import EngineError, SglcError
from sglc.runtime.choices import Choices
from sglc.runtime.radix import Node
from sglc.runtime.request import FinishReason, Request, Result, SamplingParams
from sglc.runtime.rides import Rides
from sglc.runtime.rules import Rule, Run
from sglc.runtime.sampler import Draw, Top
from sglc.runtime.stops import StopMatch, StopWatcher
from sglc.tokens.images import FIRST_ID

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

    __slots__ = ("ahead", "arrival", "border", "bound", "computed", "constraint", "context",
                 "count", "decoding", "dictated", "draw", "end_ids", "ending", "error",
                 "finished", "forced", "group", "ids", "jumps", "known", "last", "limit", "match",
                 "matched", "node", "number", "own", "pos", "private", "prompt_len",
                 "rank", "reason", "reports", "request", "retracted", "rides", "root", "rule",
                 "sampled_at", "score_end", "scores", "started", "sure", "swift", "target",
                 "tight", "want", "watcher")

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
        self.constraint: Any = None
        self.rule: Rule | None = None
        self.jumps = False
        self.ahead: list[int] = []  # tokens dictated by the canonical rule, the next one last
        self.dictated = False  # whether the last token was one of them
        self.sure = -1  # the only token that can come next, if it is known
        self.swift = False  # whether nothing but the constraint looks at single tokens

    def configure(self, draw: Draw, end_ids: frozenset[int],
                  watcher: StopWatcher | None) -> None:
        """Make it sample.  `end_ids` end it and are not kept."""
        self.draw = draw
        self.end_ids = end_ids
        self.watcher = watcher

    def constrain(self, rule: Rule, jumps: bool) -> None:
        """Bind what it samples.  `jumps`: tokens without alternative are appended, not sampled.
        It may be `finished` at once, if nothing is left to sample."""
        self.constraint = rule.constraint
        self.rule = rule
        self.jumps = jumps
        if jumps:  # else single tokens are dictated, which a device's tables do not tell
            self.draw.rule = rule
            self.swift = (rule.swift and self.watcher is None and self.draw.tally is None
                          and not self.request.held)
        began, spent = time.perf_counter(), rule.clock.seconds
        run = rule.first() if self.swift else None
        if run is not None and self._goes_on(run, 0):
            self._go(rule, run, 0)
        elif not self._enter(rule, rule.constraint.start()):
            self._jump()
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
        draw, rule = self.draw, self.rule
        return draw.tally is None and (rule is None or (draw.rule is rule and rule.there))

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
        if self.swift and self.rule is not None and self._leap(self.rule, token):
            if report is not None:
                self.reports.append(report)
            return self.finished
        return self._take(token, report) or (self.jumps and self._jump())

    def _leap(self, rule: Rule, token: int) -> bool:
        """Take a token and all that must follow it at once; false, and nothing is done, if it
        might be finished by them, but by the constraint."""
        if token in self.end_ids:
            return False
        began = time.perf_counter()
        self.ids.append(token)
        run = rule.leap(self.draw, self.ids, self.prompt_len)
        there = run is not None and self._goes_on(run, 1)
        if run is not None and there:
            self._go(rule, run, 1)
        else:
            self.ids.pop()
        rule.clock.seconds += time.perf_counter() - began
        return there

    def _goes_on(self, run: Run, drawn: int) -> bool:
        """Whether neither so many drawn tokens nor the run behind them end it, as tokens."""
        tokens = run.tokens
        return self.count + drawn + len(tokens) < self.limit and (
            not tokens or self.end_ids.isdisjoint(tokens))

    def _go(self, rule: Rule, run: Run, drawn: int) -> None:
        """Take a run, behind so many drawn tokens, which `ids` have."""
        draw, count = self.draw, drawn
        if run.tokens:
            forced = len(run.tokens)
            self.ids.extend(run.tokens)
            self.forced += forced
            rule.clock.jumps += forced
            count += forced
        self.count += count
        draw.index += count
        rule.clock.moves += 1
        end = run.end
        if end.number >= 0:
            draw.number = end.number
        else:
            draw.enter(end.state, end.words)
        if not end.open:
            self._finish("constraint")

    def _jump(self) -> bool:
        """Take the tokens that must come next; whether the sequence is finished."""
        rule = self.rule
        if rule is None or not self.jumps or self.sure < 0:
            return False
        began, spent = time.perf_counter(), rule.clock.seconds
        over = False
        while self.sure >= 0 and not over:
            self.forced += 1
            rule.clock.jumps += 1
            over = self._take(self.sure, None)
        rule.clock.seconds = spent + time.perf_counter() - began  # its parts counted themselves
        return over

    def _take(self, token: int, report: tuple[float, Top] | None, followed: bool = False) -> bool:
        """Add one token; whether the sequence is finished.  followed: see `accept`."""
        self.count += 1
        draw = self.draw
        draw.index += 1
        if token in self.end_ids and not (
                self.request.held and self.constraint.covers(self.draw.state, token)):
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
        if self.rule is not None and not followed and self._follow(self.rule, token):
            return True
        if self.count >= self.limit:
            return self._finish("length")
        return False

    def _follow(self, rule: Rule, token: int) -> bool:
        """Take the token in the constraint; whether the sequence is finished."""
        began = time.perf_counter()
        self.dictated = bool(self.ahead)
        if self.dictated:
            self.ahead.pop()
            state = rule.dictated(self.draw.state, token)
        else:
            state = self.constraint.advance(self.draw.state, token)
        over = (self.fail(self._impossible(-1)) if state is None else self._enter(rule, state))
        rule.clock.seconds += time.perf_counter() - began
        return over

    def _enter(self, rule: Rule, state: Any) -> bool:
        """Enter a constraint state; whether nothing but the end can follow."""
        draw = self.draw
        draw.state = state
        rule.clock.moves += 1
        if not self.ahead:
            outlook = rule.outlook(state)
            if not outlook.open:
                if self.constraint.accepting(state):
                    return self._finish("constraint")
                return self.fail(self._impossible(-1))
            if self.swift and outlook.number >= 0:
                draw.number = outlook.number
            else:
                draw.enter(state, outlook.words)
            if not self.dictated:
                tokens = rule.canonical.tokens(self.constraint, state, self.ids, self.prompt_len)
                self.ahead = list(reversed(tokens))
            if not self.ahead:
                self.sure = outlook.sole if self.jumps else -1
                return False
        self.sure = self.ahead[-1]
        if not self.jumps:
            assert draw.words is not None
            draw.words = _only(self.sure, len(draw.words))
        return False

    def _impossible(self, token: int) -> SglcError:
        if token == -1 and self.constraint is not None:
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

    # -- outcome -----------------------------------------------------------------------------

    def result(self, table: Ids[bytes]) -> Result:
        """The answer to the request.  `table`: token id -> bytes."""
        request = self.request
        prompt = self.prompt_len
        out = Result(prompt_tokens=prompt, started=self.started)
        out.cached_tokens = max(0, min(self.target, prompt) - self.computed)
        out.output_tokens = self.count
        out.finish_reason = self.reason
        if self.error is not None:
            out.error = self.error
            return out
        out.matched = self.matched
        if request.kind == "score":
            first = len(request.ids) if request.choices else request.score_from
            out.logprobs = self._scored(first)
        elif request.kind == "generate":
            kept = tuple(self.ids[prompt:])
            if self.match is not None:
                kept = kept[:self.match.kept]
                out.leftover = self.match.leftover
            data, skip = _spell(kept, table), len(_spell(request.held, table))
            if len(data) < skip:
                kept, data = (), b""
            out.ids = kept
            text = data[skip:].decode("utf-8", "replace")
            out.text = text + out.leftover
            if self.reports:
                reports = self.reports[:len(kept)]
                out.logprobs = tuple([report[0] for report in reports])
                if request.sampling.top_logprobs > 0:
                    out.top_logprobs = tuple([report[1] for report in reports])
            if request.want_prompt_logprobs_from is not None:
                out.prompt_logprobs = self._scored(request.want_prompt_logprobs_from)
        return out

    def _scored(self, first: int) -> tuple[float | None, ...]:
        scores: list[float | None] = [*self.scores]
        if self.request.images:  # what shows an image is not predicted
            ids = self.ids[max(first, 1):]
            scores = [None if i >= FIRST_ID else s for i, s in zip(ids, scores, strict=False)]
        if first <= 0 and self.prompt_len:
            return (None, *scores)
        return tuple(scores)


def _spell(ids: Ids[int], table: Ids[bytes]) -> bytes:
    return b"".join([table[i] for i in ids])


def _only(token: int, words: int) -> np.ndarray:
    """The packed mask that allows one token."""
    mask = np.zeros(words, dtype=np.uint32)
    mask[token >> 5] = 1 << (token & 31)
    return mask.view(np.int32)
