"""The policy of plans, and the default: order and memory are known, as far as they can be.

Sequences go by the plan's key (`Request.priority`), then arrival, and so do running prefills.
A sequence starts if memory lasts for it and all that run until their ends: where a bound on the
new tokens is tight, for the bound, which then always suffices; elsewhere for a quantile of the
lengths seen, taking into account that the shorter give back what they had (the estimate of
LightLLM's Past-Future scheduler, arXiv 2507.10150).  When an estimate was wrong, the last in
rank is sent back, and the quantile rises.  The first in rank is never sent back, and where
nothing runs the first that waits starts, whatever is held: a batch advances whenever its
largest sequence fits the pool.

Pins (see `pins.py`) keep what will be read again: a request does not start on memory that is
held or promised, unless it is the first in the plan.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np

from sglc.runtime.pins import Pin
from sglc.runtime.policies.base import Memory
from sglc.runtime.policies.lengths import Lengths
from sglc.runtime.sequence import Sequence

_rank = attrgetter("rank")
LOW, HIGH = 0.35, 0.9  # the quantile of lengths: at first, and at most
RISE, FALL = 0.2, 0.02  # how far towards HIGH by a retraction, towards LOW by a step


class Planned:
    """Order by the plan, admission by bounds and learned lengths, eviction by next use."""

    name = "planned"
    grain = 1
    at_issue = True
    exact = True
    pins = True
    patient = True

    def __init__(self) -> None:
        self.quantile = LOW
        self.lengths = Lengths()
        self._fixed = 0  # what those with tight bounds, and prefills, will still take
        self._worst = 0  # and the others, at most
        self._promised = 0  # what is kept free for pins
        self._open: list[Sequence] = []  # those others
        self._pins: dict[Pin, None] = {}  # open, with something kept free
        self._charged: dict[Sequence, tuple[int, list[tuple[Pin, int]]]] = {}  # known, expected

    # -- order -------------------------------------------------------------------------------

    def place(self, seq: Sequence, serial: int) -> tuple[Any, ...]:
        return seq.rank

    def reorder(self, memory: Memory) -> list[tuple[Any, ...]] | None:
        return None

    def turns(self, prefilling: list[Sequence]) -> list[Sequence]:
        return sorted(prefilling, key=_rank)

    def victim(self, running: list[Sequence]) -> Sequence:
        return max(running, key=_rank)

    # -- memory ------------------------------------------------------------------------------

    def begin(self, memory: Memory) -> None:
        self.quantile += FALL * (LOW - self.quantile)
        self._fixed = self._worst = 0
        self._open = []
        for seq in memory.running:
            if seq.tight:  # as in `_count`
                self._fixed += max(seq.target, seq.prompt_len + seq.bound - 1) - seq.pos
            else:
                self._count(seq)
        for pin in [pin for pin in self._pins if pin.closed]:
            del self._pins[pin]
        self._promised = sum([pin.promise for pin in self._pins])

    def _count(self, seq: Sequence) -> None:
        """Add what a running sequence will still take."""
        growth = max(seq.growth, 0)
        if seq.tight:
            self._fixed += growth
            return
        rest = max(0, seq.target - seq.pos)
        if seq.request.pins:  # what it has is not given back when it ends
            expected = min(growth, rest + self._expected(seq))
            self._fixed += expected
            self._worst += growth - expected
        else:
            self._fixed += rest
            self._worst += growth - rest
            self._open.append(seq)

    def fits(self, seq: Sequence, memory: Memory, budget: int) -> bool:
        need = growth = max(seq.growth, 0)
        room = memory.available - self._fixed
        held, promised = memory.tree.held, self._promised
        for pin, _ in seq.request.pins:
            promised -= pin.promise
            if not (pin.opened or pin.closed):
                need = max(need, pin.peak)
        if room - promised - held - self._worst >= need:
            return True  # even if all get as long as they can
        if (held or promised) and self._leads(seq):
            held, promised = memory.tree.held_before(seq.rank[0]), 0
        room -= held + promised
        if seq.tight or need > growth:
            return room - need >= self._peak(self._open)
        rest = max(0, seq.target - seq.pos)
        return room - rest >= self._peak([*self._open, seq])

    def _leads(self, seq: Sequence) -> bool:
        """Whether no open pin comes before a sequence in the plan, but for its own."""
        key = seq.request.priority
        first = min([pin.rank for pin in self._pins], default=key)
        return key[:len(first)] <= first

    def _peak(self, sequences: list[Sequence]) -> int:
        """The most slots that these take beyond what they have until the last one ends, if each
        gets as long as expected, by a token each a step, and gives back its own at its end."""
        if not sequences:
            return 0
        left = np.array([self._expected(s) for s in sequences])
        own = np.array([_own(s) for s in sequences])
        order = np.argsort(-left, kind="stable")
        left, own = left[order], own[order]
        alive = np.arange(1, len(left) + 1)
        given_back = own.sum() - np.cumsum(own)
        return int((alive * left - given_back).max())

    def _expected(self, seq: Sequence) -> int:
        """New tokens that it probably goes on for."""
        left = self.lengths.left(seq.limit, seq.count, self.quantile)
        return max(0, min(left, seq.bound - seq.count))

    # -- what happens ------------------------------------------------------------------------

    def started(self, seq: Sequence, known: int) -> None:
        self._count(seq)
        if not seq.request.pins:
            return
        rest = seq.target - known
        expected = seq.growth + seq.pos - known if seq.tight else rest + self._expected(seq)
        charged = _parts(seq, known, known + expected)
        self._charged[seq] = (known, charged)
        for pin, tokens in charged:
            before = pin.promise
            pin.spend(tokens)
            self._promised += pin.promise - before
            if pin.tokens:
                self._pins[pin] = None

    def retracted(self, seq: Sequence, running: list[Sequence]) -> None:
        self.quantile += RISE * (HIGH - self.quantile)

    def left(self, seq: Sequence) -> None:
        if seq.finished and seq.error is None and not seq.tight:
            self.lengths.add(seq.limit, seq.count)
        known, charged = self._charged.pop(seq, (0, []))
        for pin, tokens in charged:
            pin.spend(-tokens)
        if seq.finished:
            for pin, tokens in _parts(seq, known, max(known, seq.pos)):
                pin.spend(tokens)


def _parts(seq: Sequence, start: int, end: int) -> list[tuple[Pin, int]]:
    """The open pins of a sequence, with the tokens of `start .. end - 1` that each covers: a
    shared prefix what is beyond shorter ones, the first pin, which is the instance's own, the
    rest as far as it goes."""
    out: list[tuple[Pin, int]] = []
    if not seq.request.pins:
        return out
    (own, length), *shared = seq.request.pins
    for pin, n in sorted(shared, key=lambda entry: entry[1] or 0):
        stop = min(n or 0, end)
        out.append((pin, max(0, stop - start)))
        start = max(start, stop)
    stop = end if length is None else min(length, end)
    out.append((own, max(0, stop - start)))
    return [(pin, n) for pin, n in out if not pin.closed]


def _own(seq: Sequence) -> int:
    """Tokens that nobody else reads."""
    n = seq.pos - seq.own
    node = seq.node
    while node.locks == 1 and node.parent is not None:
        n += len(node.key)
        node = node.parent
    return n
