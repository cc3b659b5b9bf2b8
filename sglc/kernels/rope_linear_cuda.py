"""`rope_linear` as one kernel in CUDA C++, on Hopper."""

from __future__ import annotations

from torch import Tensor

from sglc.kernels.fused_linear_triton import SUMS_ROWS, PackedWeight, fills
from sglc.kernels.hopper_gemm_cuda import hopper_gemm_rope, takes
from sglc.kernels.int4_triton import PackedInt4
from sglc.kernels.residual import Residual
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.rope_linear_triton import rope_linear_triton


def rope_linear_cuda(x: Tensor | Residual, weight: PackedWeight | PackedInt4, norm: Tensor | None,
                     eps: float, positions: Tensor, slots: Tensor, table: Tensor, pool: Tensor,
                     q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                     bias: Tensor | None = None) -> Tensor:
    """As `rope_linear_triton`, which it takes where there is no kernel for this, or where it would
    multiply more slowly."""
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
