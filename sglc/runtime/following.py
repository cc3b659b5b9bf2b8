"""Rows of a step are where the device says they are, as far as it has found that out.

Behind most tokens nothing is to be done but to draw another one: then the device, which has the
constraint's tables, tells the number of the state, and nobody looks at the constraint.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglc.runtime.step import Step


def follow(step: Step, states: list[int]) -> None:
    """Let each row's draw be in its state.

    states: one per `step.samples`: the number, in the tables of the draw's rule, of the state in
    which the next token is to be drawn for sure; below 0 where the host is to look.
    """
    began = time.perf_counter()
    void, rule = step.void, None
    for (seq, _), state in zip(step.samples, states, strict=True):
        if state >= 0 and not (void and seq in void):
            draw = seq.draw
            draw.number, rule = state, draw.rule
    if rule is not None:
        rule.clock.seconds += time.perf_counter() - began
