"""Constraints follow the tokens of a step: all rows at once, by tables.

Behind most tokens nothing is to be done but to draw another one.  Which rows these are is looked
up in the constraint's tables, and all that is kept of such a row is the number of its state.  The
others, and those without tables, are left to be looked at one by one.  Ends and limits are not
known here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglc.runtime.step import Step


def follow(step: Step, tokens: list[int]) -> list[bool]:
    """By sample, whether its token led to a state in which another is to be drawn for sure; its
    draw is then in that state.

    tokens: one per `step.samples`.
    """
    began = time.perf_counter()
    followed = [False] * len(tokens)
    rule = moves = None
    void = step.void
    # A plain loop: with caches as cold as they are after a step, array operations take longer.
    for i, (seq, _) in enumerate(step.samples):
        draw = seq.draw
        number, token = draw.number, tokens[i]
        if number < 0 or token < 0 or (void and seq in void):
            continue
        if draw.rule is not rule:
            rule = draw.rule
            moves = rule.moves
        kinds, groups, offsets, ends, choices = moves
        end = ends[offsets[number] + kinds[groups[number]][token]]
        if choices[end]:  # false for -1, where the token leads nowhere
            draw.number = end
            followed[i] = True
    if rule is not None:
        rule.clock.seconds += time.perf_counter() - began
    return followed
