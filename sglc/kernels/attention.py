"""Scaled dot-product attention with grouped key/value heads (GQA, Ainslie et al., 2023).

Where keys and values lie, and which rows share a call, is the caller's business.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attention_torch(q: Tensor, kv: Tensor, mask: Tensor | None, causal: bool,
                    scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale + mask) v, float32 (B, N, H, D).

    q: (B, N, H, D).  kv: (B, L, 2, G, D), keys then values, G dividing H; any strides.
    mask: added to the scores, float32, broadcast against (B, 1, N, L); None means no mask.
    causal: query i sees keys 0 .. i (then N == L and mask is None).
    scale: None is 1 / sqrt(D).
    """
    k, v = kv.select(2, 0).transpose(1, 2), kv.select(2, 1).transpose(1, 2)
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k, v, attn_mask=mask, is_causal=causal, scale=scale,
        enable_gqa=q.shape[2] != kv.shape[3])
    return out.transpose(1, 2)


def capped_attention_torch(q: Tensor, kv: Tensor, mask: Tensor | None, causal: bool,
                           scale: float | None = None, *, cap: float) -> Tensor:
    """As `attention_torch`, of scores that are capped before the mask: cap * tanh(s / cap)."""
    batch, n, heads, dim = q.shape
    length, groups = kv.shape[1], kv.shape[3]
    k, v = kv.select(2, 0).permute(0, 2, 3, 1), kv.select(2, 1).transpose(1, 2)
    # The heads of a group stand beside each other as more queries: (B, G, H / G * N, D).
    wide = q.reshape(batch, n, groups, heads // groups, dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    scores = (wide @ k).mul_((scale or dim ** -0.5) / cap).tanh_().mul_(cap)
    scores = scores.view(batch, groups, -1, n, length)
    if causal:
        mask = torch.full((n, length), float("-inf")).triu(1)
    if mask is not None:
        scores += mask if mask.dim() < 4 else mask[:, :, None]
    out = scores.softmax(-1).flatten(2, 3) @ v
    return out.view(batch, groups, -1, n, dim).permute(0, 3, 1, 2, 4).flatten(2, 3)
