"""Writes a step's keys and values into a layer's pool."""

from __future__ import annotations

from torch import Tensor


def store_kv_torch(pool: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """pool[slots, 0] = keys; pool[slots, 1] = values.

    pool: (slots, 2, kv_heads, head_dim); slots: int64 (T,), distinct; keys and values:
    (T, kv_heads, head_dim).
    """
    pool[:, 0].index_copy_(0, slots, keys)
    pool[:, 1].index_copy_(0, slots, values)
