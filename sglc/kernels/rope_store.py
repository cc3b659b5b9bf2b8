"""What lies between the QKV product and attention, as one operation: split, optional biases
(Qwen2), optional norms of queries and keys (Qwen3), rotary embedding, and the store of keys and
values into the pool."""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.rms_norm import rms_norm_torch
from sglc.kernels.rope import rope_angles_torch, rope_torch
from sglc.kernels.store_kv import store_kv_torch


def rope_table(frequencies: Tensor, length: int, scale: float = 1.0) -> Tensor:
    """float32 (length, head_dim): cosines, then sines, of every position's head_dim / 2 angles.

    Scaled rope is a matter of `frequencies`, and of `scale`, which YaRN multiplies both with.
    """
    cos, sin = rope_angles_torch(torch.arange(length, device=frequencies.device), frequencies)
    half = frequencies.shape[0]
    return torch.cat((cos[:, 0, half:], sin[:, 0, half:]), 1) * scale


def rope_store_torch(qkv: Tensor, positions: Tensor, slots: Tensor, table: Tensor, pool: Tensor,
                     q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                     eps: float = 0.0, bias: Tensor | None = None) -> Tensor:
    """The rotated queries, (T, heads, head_dim), in the type of `qkv`; keys and values are stored.

    qkv: (T, (heads + 2 kv_heads) * head_dim), queries, keys, values.  positions, slots: int64
    (T,); a slot of -1 stores nothing (padding).  table: from `rope_table`.
    pool: (slots, 2, kv_heads, head_dim).  q_norm, k_norm: (head_dim,), both or neither.
    bias: float32, added to every row of `qkv`.  Computed in float32.
    """
    kind = qkv.dtype
    if bias is not None:
        qkv = qkv.float() + bias
    groups, dim = pool.shape[2:]
    heads = qkv.shape[1] // dim - 2 * groups
    q, k, v = (t.view(len(qkv), -1, dim) for t in
               qkv.split((heads * dim, groups * dim, groups * dim), 1))
    q, k = q.float(), k.float()
    if q_norm is not None and k_norm is not None:
        q = rms_norm_torch(q, q_norm.float(), eps)
        k = rms_norm_torch(k, k_norm.float(), eps)
    cos, sin = table[positions][:, None].chunk(2, -1)
    angles = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    kept = slots >= 0
    store_kv_torch(pool, slots[kept], rope_torch(k, *angles)[kept].to(pool.dtype),
                   v[kept].to(pool.dtype))
    return rope_torch(q, *angles).to(kind)
