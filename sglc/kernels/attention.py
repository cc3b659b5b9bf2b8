"""Scaled dot-product attention with grouped key/value heads (GQA, Ainslie et al., 2023).

Where keys and values lie, and which rows share a call, is the caller's business.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attention_torch(q: Tensor, kv: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(D) + mask) v, float32 (B, N, H, D).

    q: (B, N, H, D).  kv: (B, L, 2, G, D), keys then values, G dividing H; any strides.
    mask: added to the scores, float32, broadcast against (B, 1, N, L); None means no mask.
    causal: query i sees keys 0 .. i (then N == L and mask is None).
    """
    k, v = kv.select(2, 0).transpose(1, 2), kv.select(2, 1).transpose(1, 2)
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k, v, attn_mask=mask, is_causal=causal,
        enable_gqa=q.shape[2] != kv.shape[3])
    return out.transpose(1, 2)
