"""`rms_norm` and `rms_norm_add` as one Triton kernel: a program a row, sums in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs


@triton.jit
def _kernel(x_ptr, residual_ptr, weight_ptr, out_ptr, width, eps,
            BLOCK: tl.constexpr, AFTER: tl.constexpr, OVERLAP: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, BLOCK)
    inside = at < width
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    x = tl.load(x_ptr + row + at, mask=inside, other=0.0)
    x = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    y = x * scale * weight
    if AFTER:
        y += tl.load(residual_ptr + row + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row + at, y.to(out_ptr.dtype.element_ty), mask=inside)


def _launch(x: Tensor, residual: Tensor, weight: Tensor, eps: float, after: bool) -> Tensor:
    rows, width = x.shape
    out = residual if after else torch.empty_like(x)
    if rows:
        block = triton.next_power_of_2(width)
        _kernel[(rows,)](x, residual, weight, out, width, eps, BLOCK=block, AFTER=after,
                         num_warps=min(16, max(1, block // 512)), **overlap(x))
    return out


def rms_norm_triton(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `rms_norm_torch`, of contiguous x (T, H) of any float type, which the result has too."""
    return _launch(x, x, weight, eps, False)


def rms_norm_add_triton(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `rms_norm_add_torch`, of contiguous tensors."""
    return _launch(x, residual, weight, eps, True)
