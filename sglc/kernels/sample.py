"""Draws a token a row: masks, penalties, temperature, top-k, top-p, min-p, Gumbel-max.

The noise of token v of a row belongs to its key, its index and v: `-log(-log(u))` with
`u = (w + 0.5) 2^-32`, w being word v % 4 of Philox-4x32-10 (Salmon et al., 2011) at counter
(index, v // 4, 0, 0).  A row's token depends on its own logits and draw only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.draws import COUNT_MASK, Draws

_INF = float("inf")
_LOW = 0xFFFFFFFF


def sample_torch(logits: Tensor, mask: Tensor, draws: Draws, ids: Tensor | None = None) -> Tensor:
    """The drawn tokens, int64 (R,); -1 where none is possible, -2 where a possible one is NaN.

    logits: (R, N), any float type, not changed.
    mask: int32 (R, words) or (1, words) for all rows alike: bit t & 31 of word t >> 5 says
        whether token t may be drawn.
    ids: int32 (R, N), the tokens of the columns, ascending, and -1 after a row's last; None for
        0 .. N - 1.
    Ties go to the lowest id.  What decides is computed in float64.
    """
    rows, count = logits.shape
    tokens = torch.arange(count, device=logits.device)[None] if ids is None else ids.long()
    tokens = tokens.expand(rows, -1)
    real = tokens.clamp(min=0)
    words = mask.expand(rows, -1).gather(1, real >> 5)
    allowed = ((words >> (real & 31).int()) & 1).bool() & (tokens >= 0)
    scores = logits.double().masked_fill(~allowed, -_INF)
    scores = _penalised(scores, real, draws)
    heat = draws.temperature[:, None]
    hot = (heat > 0).squeeze(1)
    if bool(hot.any()):
        warm = scores[hot] / heat[hot]
        if draws.filtered:
            warm = _filtered(warm, draws.top_k[hot], draws.top_p[hot], draws.min_p[hot])
        scores[hot] = warm + _noise(draws.key[hot], draws.index[hot], real[hot])
    values, columns = scores.max(dim=1)
    found = real.gather(1, columns[:, None])[:, 0]
    return found.masked_fill(values == -_INF, -1).masked_fill(values.isnan(), -2)


def _penalised(scores: Tensor, tokens: Tensor, draws: Draws) -> Tensor:
    if draws.penalties is None or draws.tally is None or draws.tally_row is None:
        return scores
    tally = draws.tally[draws.tally_row.clamp(min=0).long()].gather(1, tokens)
    known = (tally != 0) & (draws.tally_row >= 0)[:, None]
    counts = (tally & COUNT_MASK).double()
    repetition, frequency, presence = draws.penalties[:, :, None].unbind(1)
    values = torch.where(scores > 0, scores / repetition, scores * repetition)
    values = values - (frequency * counts + presence * (counts > 0))
    return torch.where(known, values, scores)


def _filtered(scores: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """What top-k, then top-p, then min-p exclude set to -inf.  Of equals, low ids are kept."""
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device)
    limit = torch.where(top_k > 0, top_k, scores.shape[1]).long()[:, None]
    ordered = ordered.masked_fill(rank >= limit, -_INF)
    likely = torch.softmax(ordered, dim=1)
    inside = (likely.cumsum(dim=1) - likely < top_p[:, None]) | (top_p >= 1.0)[:, None]
    inside[:, 0] = True
    inside &= ordered >= ordered[:, :1] + min_p[:, None].log()
    return torch.full_like(scores, -_INF).scatter(1, order, ordered.masked_fill(~inside, -_INF))


def _noise(key: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    c0, c1 = (index & _LOW)[:, None].expand_as(tokens), tokens >> 2
    c2 = c3 = torch.zeros_like(tokens)
    k0, k1 = (key & _LOW)[:, None], ((key >> 32) & _LOW)[:, None]
    for _ in range(10):
        # Products wrap at 64 bits, which leaves both halves right.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW,
                          ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW)
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    words = torch.stack((c0, c1, c2, c3), -1).gather(-1, (tokens & 3)[..., None])[..., 0]
    return -torch.log(-torch.log((words.double() + 0.5) * 2.0**-32))
