"""The draws of a step that the model's own pass does, its graph included: one a row of output, with
no more than noise and masks from tables.

A row that draws again after a draw of the step before is, in its constraint, where that one has
led to, which the device knows.  So where the same rows draw again, and the host itself has not
found out where any of them is, there is nothing to find out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sglc.kernels.fsm import NO_TABLE
from sglc.runtime.cuda.device_sampler import PLAIN, DeviceSampler, plain_draws
from sglc.runtime.rules import Clock
from sglc.runtime.sampler import WORDS, Draw
from sglc.runtime.step import Step

if TYPE_CHECKING:
    from sglc.runtime.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Drawing:
    """What K rows of output need to draw.

    numbers: int64 (4, K): keys, counters, the bits of temperatures (0 for the best token), and
    where rows are in their constraints (see `kernels/fsm.py`).  masked: whether those count.
    """

    numbers: np.ndarray
    masked: bool


@dataclass(slots=True)
class _Last:
    """The step before.  rows: of output, by sample.  moves: see `Clock`.  again: what it is if its
    rows draw once more."""

    samples: list[tuple[Sequence, int]]
    outputs: int
    flags: int
    rows: list[int]
    moves: int
    again: Drawing | None = None


class SimpleDraws:
    """Makes the `Drawing` of each step, which must be told of all steps.

    clock: what constraints cost elsewhere on the host, and when rows' states were found there.
    """

    def __init__(self, sampler: DeviceSampler) -> None:
        self.clock = Clock()
        self._sampler = sampler
        self._last: _Last | None = None

    def of(self, step: Step) -> Drawing | None:
        """None if a row draws otherwise, or not from the step's outputs alone."""
        began = time.perf_counter()
        last, samples, outputs = self._last, step.samples, len(step.outputs)
        if last is None or last.moves != self.clock.moves or last.outputs != outputs \
                or last.samples != samples:
            return self._fresh(step)
        made = last.again
        if made is None:
            numbers = np.zeros((4, outputs), np.int64)
            numbers[3] = NO_TABLE
            if last.flags & WORDS:
                numbers[3, last.rows] = -1 - np.array(last.rows)
            made = last.again = Drawing(numbers, bool(last.flags & WORDS))
        if made.masked:
            self._sampler.mask_seconds += time.perf_counter() - began
        if last.flags & PLAIN:
            made = Drawing(made.numbers.copy(), made.masked)
            made.numbers[:3, last.rows] = plain_draws(*_early(step))
        return made

    def _fresh(self, step: Step) -> Drawing | None:
        """The same without the step before."""
        self._last = None
        flags = 0
        rows: list[int] = []
        for seq, k in step.samples:
            flags |= seq.draw.flags
            rows.append(k)
        if not rows or flags & ~(PLAIN | WORDS) or min(rows) < 0 or len(set(rows)) < len(rows):
            return None
        numbers = np.zeros((4, len(step.outputs)), np.int64)
        numbers[3] = NO_TABLE
        if flags & WORDS:
            began = time.perf_counter()
            draws, after = draws_of(step)
            states, all_there = self._sampler.states(draws, after)
            numbers[3, rows] = states
            self._sampler.mask_seconds += time.perf_counter() - began
            if not all_there:
                return None
        if flags & PLAIN:
            numbers[:3, rows] = plain_draws(*_early(step))
        self._last = _Last(step.samples, len(step.outputs), flags, rows, self.clock.moves)
        return Drawing(numbers, bool(flags & WORDS))


def draws_of(step: Step) -> tuple[list[Draw], list[int]]:
    """The draws of a step's samples, and the number of the token, still being drawn, that each
    comes after; -1 for none."""
    return ([seq.draw for seq, _ in step.samples],
            [max(-1 - seq.ids[-1], -1) for seq, _ in step.samples])


def _early(step: Step) -> tuple[list[Draw], list[bool]]:
    draws, after = draws_of(step)
    return draws, [i >= 0 for i in after]
