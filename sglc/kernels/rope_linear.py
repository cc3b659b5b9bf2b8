"""The product of queries, keys and values with what follows it, as one operation."""

from __future__ import annotations

from torch import Tensor

from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.int4 import Int4Matrix
from sglc.kernels.residual import Residual
from sglc.kernels.rope_store import rope_store_torch


def rope_linear_torch(x: Tensor | Residual, weight: Tensor | Int4Matrix, norm: Tensor | None,
                      eps: float, positions: Tensor, slots: Tensor, table: Tensor, pool: Tensor,
                      q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                      bias: Tensor | None = None) -> Tensor:
    """The rotated queries of rms_norm(x) W^T, (T, heads, head_dim); keys and values are stored.

    x, weight, norm: as for `fused_linear_torch`; the rest as for `rope_store_torch`, whose `qkv`
    is the product.
    """
    return rope_store_torch(fused_linear_torch(x, weight, norm, eps), positions, slots, table,
                            pool, q_norm, k_norm, eps, bias)
