"""Log-probabilities of drawn tokens and of the most likely ones, from raw logits."""

from __future__ import annotations

import torch
from torch import Tensor


def logprobs_torch(logits: Tensor, tokens: Tensor, top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(of the token, of the `top` best, their ids): float32 (R,), float32 (R, top), int64.

    logits: (R, V).  tokens: int64 (R,); the value at a negative one is -inf.
    The best come best first; of equals, low ids first.
    """
    raw = torch.log_softmax(logits.float(), dim=-1)
    own = raw.gather(1, tokens.clamp(min=0)[:, None])[:, 0]
    values, ids = raw.sort(dim=1, descending=True, stable=True)
    return own.masked_fill(tokens < 0, -float("inf")), values[:, :top], ids[:, :top]
