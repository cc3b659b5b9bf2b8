"""Logits of few tokens: only their rows of the LM head are read."""

from __future__ import annotations

from torch import Tensor


def few_logits_torch(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    """out[r, j] = hidden[r] . head[ids[r, j]], float32 (R, C); -inf where the id is -1.

    hidden: (R, H).  head: (V, H), of the same type.  ids: int32 (R, C), -1 after a row's last.
    """
    rows = head[ids.clamp(min=0).long()].float()
    logits = (rows @ hidden.float()[:, :, None])[:, :, 0]
    return logits.masked_fill(ids < 0, -float("inf"))
