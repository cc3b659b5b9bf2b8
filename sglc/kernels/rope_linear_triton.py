"""`rope_linear` as a product and a kernel behind it."""

from __future__ import annotations

from torch import Tensor

from sglc.kernels.fused_linear_triton import PackedWeight, fused_linear_triton
from sglc.kernels.int4_triton import PackedInt4
from sglc.kernels.residual import Residual
from sglc.kernels.rope_store_triton import rope_store_triton


def rope_linear_triton(x: Tensor | Residual, weight: PackedWeight | PackedInt4,
                       norm: Tensor | None, eps: float, positions: Tensor, slots: Tensor,
                       table: Tensor, pool: Tensor, q_norm: Tensor | None = None,
                       k_norm: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """As `rope_linear_torch`, of contiguous tensors and a weight that is packed."""
    return rope_store_triton(fused_linear_triton(x, weight, norm, eps), positions, slots, table,
                             pool, q_norm, k_norm, eps, bias)
