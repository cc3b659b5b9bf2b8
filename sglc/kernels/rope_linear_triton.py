"""`rope_linear` as a product and a kernel behind it, or on Hopper as one kernel in CUDA C++."""

from __future__ import annotations

from torch import Tensor

from sglc.kernels.fused_linear_triton import (
    SUMS_ROWS,
    PackedWeight,
    fills,
    fused_linear_triton,
    takes,
)
from sglc.kernels.hopper_gemm_cuda import hopper_gemm_rope
from sglc.kernels.int4_triton import PackedInt4
from sglc.kernels.residual import Residual
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.rope_store_triton import rope_store_triton


def rope_linear_triton(x: Tensor | Residual, weight: PackedWeight | PackedInt4,
                       norm: Tensor | None, eps: float, positions: Tensor, slots: Tensor,
                       table: Tensor, pool: Tensor, q_norm: Tensor | None = None,
                       k_norm: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """As `rope_linear_torch`, of contiguous tensors and a weight that is packed."""
    return rope_store_triton(fused_linear_triton(x, weight, norm, eps), positions, slots, table,
                             pool, q_norm, k_norm, eps, bias)


def rope_linear_cuda(x: Tensor | Residual, weight: PackedWeight | PackedInt4, norm: Tensor | None,
                     eps: float, positions: Tensor, slots: Tensor, table: Tensor, pool: Tensor,
                     q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                     bias: Tensor | None = None) -> Tensor:
    """The same in one kernel, where there is one for this, and it multiplies about as fast as what
    `rope_linear_triton` takes."""
    rows, squares = x if isinstance(x, Residual) else (x, None)
    sums = squares is not None and norm is not None
    if q_norm is not None or bias is not None or pool.shape[3] % 32 \
            or len(rows) < SUMS_ROWS.start or not (sums or fills(len(rows))) \
            or not isinstance(weight, PackedWeight) or not takes(rows, weight.weight):
        return rope_linear_triton(x, weight, norm, eps, positions, slots, table, pool, q_norm,
                                  k_norm, bias)
    if not sums:
        x = rows if norm is None else rms_norm_triton(rows, norm, eps)
    return hopper_gemm_rope(x, weight.weight, positions, slots, table, pool, eps)
