"""`fused_linear` on a GPU: Triton kernels for few rows, cuBLAS and one of CUDA C++ for many.

Up to 16 rows the product is bound by reading the weight, and everything around it happens in the
same kernel.  With more, the norm is a kernel of its own; cuBLAS multiplies (and adds the residual);
products with a gate are one kernel on Hopper where its tiles are full enough, and elsewhere the
gate comes after cuBLAS.  Of some numbers of rows a layer's products on Hopper all are that kernel,
which does the norm as well (see `Residual`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.kernels.gelu_mul_triton import gelu_mul_triton
from sglc.kernels.gemv_triton import gemv_triton
from sglc.kernels.hopper_gemm_cuda import (
    TILE_ROWS,
    hopper_gemm,
    hopper_gemm_add,
    row_sums,
    takes,
)
from sglc.kernels.int4_pack import PackedInt4
from sglc.kernels.int4_triton import int4_linear_triton
from sglc.kernels.residual import Residual
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.silu_mul_triton import gate_mul
from sglc.kernels.small_gemm_triton import MAX_ROWS, SMALLEST_TILE, small_gemm_triton

# Rows of which products on Hopper make and take sums of squares in place of a norm.  Of fewer,
# cuBLAS has smaller tiles; of more, the power limit binds, and a norm is a rest (`offline` of
# `bench.gpu_engine`: 7.62 s with norms, 7.67 s with sums).
SUMS_ROWS = range(193, 257)


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight, (out, in), contiguous, and the counters of programs that its products use.

    Products of one weight must run one after the other, and the kernel launched just before one
    must not be what writes the weight (see `overlap`).
    """

    weight: Tensor
    arrived: Tensor


def pack_triton(weight: Tensor) -> PackedWeight:
    """The weight as `fused_linear_triton` and `linear_triton` want it."""
    tiles = -(-weight.shape[0] // SMALLEST_TILE)
    return PackedWeight(weight.contiguous(),
                        torch.zeros(tiles, dtype=torch.int32, device=weight.device))


def fused_linear_triton(x: Tensor | Residual, weight: PackedWeight | PackedInt4,
                        norm: Tensor | None = None, eps: float = 0.0,
                        residual: Tensor | None = None, gated: bool = False,
                        out_dtype: torch.dtype | None = None, gelu: bool = False) -> Tensor:
    """As `fused_linear_torch`, of contiguous tensors and a weight from `pack_triton` or
    `pack_int4_triton`."""
    x, squares = x if isinstance(x, Residual) else (x, None)
    kind = out_dtype or x.dtype
    if isinstance(weight, PackedInt4):
        if gated and gelu:
            return gelu_mul_triton(int4_linear_triton(x, weight, norm, eps, None, False, x.dtype)
                                   ).to(kind)
        return int4_linear_triton(x, weight, norm, eps, residual, gated, kind)
    if len(x) == 1:
        return gemv_triton(x, weight.weight, norm, eps, residual, gated, kind, gelu=gelu)
    if 0 < len(x) <= MAX_ROWS:
        return small_gemm_triton(x, weight.weight, weight.arrived, norm, eps, residual, gated,
                                 kind, gelu=gelu)
    if squares is not None and norm is not None and takes(x, weight.weight, out_dtype):
        return hopper_gemm(Residual(x, squares), weight.weight, residual, gated, out_dtype, gelu,
                           eps)
    if norm is not None:
        x = rms_norm_triton(x, norm, eps)
    if gated and kind is x.dtype and takes(x, weight.weight) and fills(len(x)):
        return hopper_gemm(x, weight.weight, gated=True, gelu=gelu)
    turned = weight.weight.t()
    if residual is not None:
        return residual.addmm_(x, turned)
    if kind is not x.dtype and kind is torch.float32 and x.is_cuda:
        y = torch.mm(x, turned, out_dtype=kind)
    else:
        y = x @ turned
    return (gate_mul(y, gelu) if gated else y).to(kind)


def add_linear_triton(x: Tensor, weight: PackedWeight | PackedInt4, residual: Tensor,
                      squares: bool = False) -> Residual:
    """As `add_linear_torch`, of contiguous tensors and a weight from `pack_triton` or
    `pack_int4_triton`."""
    if squares and row_sums(residual.shape[1]) is not None and len(x) in SUMS_ROWS \
            and isinstance(weight, PackedWeight) and takes(x, weight.weight):
        return hopper_gemm_add(x, weight.weight, residual, parts=2)
    return Residual(fused_linear_triton(x, weight, residual=residual))


def fills(rows: int) -> bool:
    """Whether tiles of so many rows are full enough for one kernel to be faster than cuBLAS, which
    has tiles of more sizes, and a gate."""
    return rows <= TILE_ROWS or rows >= 0.87 * TILE_ROWS * -(-rows // TILE_ROWS)


def linear_triton(x: Tensor, weight: PackedWeight) -> Tensor:
    """x W^T in the type of x, (T, out)."""
    return fused_linear_triton(x, weight)
