"""`fused_linear` on a GPU: Triton kernels for few rows, cuBLAS and one of CUDA C++ for many.

Up to 16 rows the product is bound by reading the weight, and everything around it happens in the
same kernel.  With more, the norm is a kernel of its own; cuBLAS multiplies (and adds the residual);
products with a gate are one kernel on Hopper, and elsewhere the gate comes after cuBLAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.kernels.gated_gemm_cuda import gated_gemm, takes
from sglc.kernels.gelu_mul_triton import gelu_mul_triton
from sglc.kernels.gemv_triton import gemv_triton
from sglc.kernels.int4_pack import PackedInt4
from sglc.kernels.int4_triton import int4_linear_triton
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.silu_mul_triton import gate_mul
from sglc.kernels.small_gemm_triton import MAX_ROWS, SMALLEST_TILE, small_gemm_triton


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


def fused_linear_triton(x: Tensor, weight: PackedWeight | PackedInt4, norm: Tensor | None = None,
                        eps: float = 0.0, residual: Tensor | None = None, gated: bool = False,
                        out_dtype: torch.dtype | None = None, gelu: bool = False) -> Tensor:
    """As `fused_linear_torch`, of contiguous tensors and a weight from `pack_triton` or
    `pack_int4_triton`."""
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
    if norm is not None:
        x = rms_norm_triton(x, norm, eps)
    if gated and kind is x.dtype and takes(x, weight.weight):
        return gated_gemm(x, weight.weight, gelu)
    turned = weight.weight.t()
    if residual is not None:
        return residual.addmm_(x, turned)
    if kind is not x.dtype and kind is torch.float32 and x.is_cuda:
        y = torch.mm(x, turned, out_dtype=kind)
    else:
        y = x @ turned
    return (gate_mul(y, gelu) if gated else y).to(kind)


def linear_triton(x: Tensor, weight: PackedWeight) -> Tensor:
    """x W^T in the type of x, (T, out)."""
    return fused_linear_triton(x, weight)
