"""One text in its constraint: which state it is in, which tokens must come next, and where it ends.

A matcher moves the sequence's `Draw` from state to state, token by token or by whole runs of
tokens without alternative.  It knows the rule (`rules.py`) and the text's ids; limits, stops and
what becomes of the sequence are not its business.
"""

from __future__ import annotations

import time
from array import array
from typing import Any, Literal

import numpy as np

from sglc.runtime.rules import Rule, Run
from sglc.runtime.sampler import Draw

# More can follow; nothing can, and the text is one of the constraint's; nothing can, and it is not.
Standing = Literal["open", "complete", "stuck"]


class Matcher:
    """The state of one text, which `draw` holds.

    jumps: tokens without alternative are appended, not sampled.  swift: whether runs are taken at
    once, as nothing else looks at single tokens.  sure: the only token that can come next, -1 if
    that is not known.  `ids[start:]` is the text so far, in all methods.
    """

    __slots__ = ("_ahead", "_dictated", "_draw", "_jumps", "rule", "sure", "swift")

    def __init__(self, rule: Rule, draw: Draw, *, jumps: bool, swift: bool) -> None:
        self.rule = rule
        self.swift = swift
        self.sure = -1
        self._draw = draw
        self._jumps = jumps
        self._ahead: list[int] = []  # tokens dictated by the canonical rule, the next one last
        self._dictated = False  # whether the last token was one of them
        if jumps:  # else single tokens are dictated, which a device's tables do not tell
            draw.rule = rule

    def covers(self, token: int) -> bool:
        """Whether a token that comes next is one that is held (see `grammar/prefixed.py`)."""
        return self.rule.constraint.covers(  # type: ignore[no-any-return]
            self._draw.state, token)

    # -- runs --------------------------------------------------------------------------------

    def leap(self, token: int | None, ids: array[int], start: int, room: int,
             end_ids: frozenset[int]) -> Run | None:
        """Append the token that was drawn, None at the beginning, and all that must follow it.
        Returns what followed; None, and nothing is done, if that is not known, is not fewer than
        `room` tokens, or has one of `end_ids`."""
        began = time.perf_counter()
        rule, draw = self.rule, self._draw
        clock = rule.clock
        if token is None:
            run = rule.first()
        else:
            ids.append(token)
            run = rule.leap(draw, ids, start)
        if run is not None and len(run.tokens) < room and (
                not run.tokens or end_ids.isdisjoint(run.tokens)):
            if run.tokens:
                ids.extend(run.tokens)
                clock.jumps += len(run.tokens)
            clock.moves += 1
            end = run.end
            if end.number >= 0:
                draw.number = end.number
            else:
                draw.enter(end.state, end.words)
        else:
            run = None
            if token is not None:
                ids.pop()
        clock.seconds += time.perf_counter() - began
        return run

    # -- tokens ------------------------------------------------------------------------------

    def begin(self, ids: array[int], start: int) -> Standing:
        """Enter the first state."""
        return self._enter(self.rule.constraint.start(), ids, start)

    def follow(self, token: int, ids: array[int], start: int) -> Standing:
        """Take a token, which `ids` have already."""
        began = time.perf_counter()
        rule = self.rule
        self._dictated = bool(self._ahead)
        if self._dictated:
            self._ahead.pop()
            state = rule.dictated(self._draw.state, token)
        else:
            state = rule.constraint.advance(self._draw.state, token)
        standing: Standing = "stuck" if state is None else self._enter(state, ids, start)
        rule.clock.seconds += time.perf_counter() - began
        return standing

    def _enter(self, state: Any, ids: array[int], start: int) -> Standing:
        rule, draw = self.rule, self._draw
        draw.state = state
        rule.clock.moves += 1
        if not self._ahead:
            outlook = rule.outlook(state)
            if not outlook.open:
                return "complete" if rule.constraint.accepting(state) else "stuck"
            if self.swift and outlook.number >= 0:
                draw.number = outlook.number
            else:
                draw.enter(state, outlook.words)
            if not self._dictated:
                tokens = rule.canonical.tokens(rule.constraint, state, ids, start)
                self._ahead = list(reversed(tokens))
            if not self._ahead:
                self.sure = outlook.sole if self._jumps else -1
                return "open"
        self.sure = self._ahead[-1]
        if not self._jumps:
            assert draw.words is not None
            draw.words = _only(self.sure, len(draw.words))
        return "open"


def _only(token: int, words: int) -> np.ndarray:
    """The packed mask that allows one token."""
    mask = np.zeros(words, dtype=np.uint32)
    mask[token >> 5] = 1 << (token & 31)
    return mask.view(np.int32)
