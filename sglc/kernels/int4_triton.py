"""`fused_linear` with 4-bit weights on a GPU: Triton kernels for few rows and for some; for many
the weight is made dense, for this product alone, and multiplied by cuBLAS."""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.int4 import Int4Matrix
from sglc.kernels.int4_few_triton import FEW_LINES, int4_few_triton
from sglc.kernels.int4_gemm_triton import MOST_LINES, int4_gemm_triton
from sglc.kernels.int4_order_triton import int4_order_triton
from sglc.kernels.int4_pack import TILE, PackedInt4, dense_triton, pack_words
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.silu_mul_triton import silu_mul_triton


def pack_int4_triton(matrix: Int4Matrix) -> PackedInt4 | None:
    """The matrix as `int4_linear_triton` wants it; None for what `pack_words` does not take."""
    return pack_words(matrix)


def int4_linear_triton(x: Tensor, weight: PackedInt4, norm: Tensor | None, eps: float,
                       residual: Tensor | None, gated: bool, out_dtype: torch.dtype) -> Tensor:
    """`fused_linear` for contiguous x (T, in)."""
    fused = gated and weight.outs % (2 * TILE) == 0
    kind = x.dtype if gated and not fused else out_dtype
    if 0 < len(x) <= FEW_LINES:
        y = int4_few_triton(_inputs(x, weight, norm, eps), weight, residual, fused, kind)
        return silu_mul_triton(y).to(out_dtype) if gated and not fused else y
    # In float32 there are no tensor cores, and more rows take more registers than there are.
    if 0 < len(x) <= (16 if x.dtype is torch.float32 else MOST_LINES):
        y = int4_gemm_triton(x, weight, norm, eps, residual, fused, kind)
        return silu_mul_triton(y).to(out_dtype) if gated and not fused else y
    x = _inputs(x, weight, norm, eps)
    if residual is not None and not gated:
        return residual.addmm_(x, dense_triton(weight, x.dtype).t())
    y = x @ dense_triton(weight, x.dtype).t()
    return (silu_mul_triton(y) if gated else y).to(out_dtype)


def _inputs(x: Tensor, weight: PackedInt4, norm: Tensor | None, eps: float) -> Tensor:
    """x in the order of the words, normed if `norm` is given."""
    if weight.order is not None:
        return int4_order_triton(x, weight.order, norm, eps)
    return x if norm is None else rms_norm_triton(x, norm, eps)
