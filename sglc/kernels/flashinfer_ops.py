"""Norms and the gate by FlashInfer (Ye et al., 2025), for 16-bit types; others are Triton's.

The package compiles a kernel when it is first called, and keeps it on disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.silu_mul_triton import silu_mul_triton

_LANES = 8  # numbers of 16 bits that it reads at once


def _taken(x: Tensor, width: int) -> bool:
    """Whether FlashInfer computes rows of this width: not empty, of 16 bits, aligned."""
    return x.dtype in (torch.bfloat16, torch.float16) and len(x) > 0 and width % _LANES == 0


def rms_norm_flashinfer(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `rms_norm_torch`, of contiguous x (T, H) of any float type, which the result has too."""
    if weight.dtype is not x.dtype or not _taken(x, x.shape[1]):
        return rms_norm_triton(x, weight, eps)
    from flashinfer.norm import rmsnorm

    out: Tensor = rmsnorm(x, weight, eps)
    return out


def silu_mul_flashinfer(gate_up: Tensor) -> Tensor:
    """As `silu_mul_torch`, of a contiguous (T, 2 I) of any float type; computed in float32."""
    if not _taken(gate_up, gate_up.shape[1] // 2):
        return silu_mul_triton(gate_up)
    from flashinfer.activation import silu_and_mul

    out: Tensor = silu_and_mul(gate_up)
    return out
