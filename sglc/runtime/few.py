"""Drawing where a constraint allows few tokens: only their logits are computed.

Under one token in fifty, the LM head's rows of just those tokens are cheaper to gather than the
whole head is to multiply, and the sampler's work shrinks alike.  The token is that of the whole
row (see `sampler.py`), up to the rounding of its logits; which way is taken depends on the row's
own mask alone.
"""

from __future__ import annotations

import numpy as np
import torch

from sglc.runtime.noise import gumbel_max
from sglc.runtime.sampler import BIAS, Draw, Sampler, best, keep_likely, unpack

_SHARE = 50  # at most one in so many tokens is few
_KEPT = 1024  # masks whose ids are remembered


class FewTokens:
    """The few tokens that masks allow, for one sampler."""

    def __init__(self, sampler: Sampler) -> None:
        self._vocab = sampler.vocab_size
        self._never = np.array(sorted(sampler.never), dtype=np.int64)
        self._known: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}

    def of(self, draw: Draw) -> np.ndarray | None:
        """The ids that the next draw chooses from, ascending; the same array for the same mask.
        None where they are not few, or all logits are wanted."""
        words = draw.words
        if words is None or draw.reports or draw.flags & BIAS:
            return None
        known = self._known.get(id(words))
        if known is None:
            ids = np.flatnonzero(unpack(words, self._vocab))
            few = 0 < len(ids) <= self._vocab // _SHARE and not np.isin(ids, self._never).any()
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = words, ids if few else None
            self._known[id(words)] = known  # holds the mask, so that its id stays its own
        return known[1]


@torch.inference_mode()
def draw_few(logits: torch.Tensor, ids: np.ndarray, draw: Draw) -> int:
    """The token drawn.  `logits`: of the tokens `ids`, shape (n,); -2 if they are not numbers."""
    params = draw.params
    scores = logits.double()[None]
    if draw.hold and draw.index < params.min_tokens:
        held = np.isin(ids, draw.hold)
        if not held.all():  # else nothing else is possible
            scores[0, torch.from_numpy(held)] = -float("inf")
    if draw.tally is not None:
        draw.tally.apply(scores[0], params, ids)
    if params.greedy:
        at = best(scores)[0]
    else:
        scores = keep_likely(scores / params.temperature, [params])
        counters = np.array([(draw.index, draw.low, draw.high)], dtype=np.uint64)
        at = gumbel_max(scores, counters, ids)[0]
    return int(ids[at]) if at >= 0 else at
