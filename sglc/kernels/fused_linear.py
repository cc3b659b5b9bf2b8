"""y = x W^T with what stands before and after it in a transformer layer.

Before it may stand an RMSNorm of x; after it either the product of silu(gate) or gelu(gate) and
up, where W is gate and up one above the other, or the addition to the residual.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.gelu_mul import gelu_mul_torch
from sglc.kernels.int4 import Int4Matrix
from sglc.kernels.residual import Residual
from sglc.kernels.rms_norm import rms_norm_torch
from sglc.kernels.silu_mul import silu_mul_torch


def fused_linear_torch(x: Tensor | Residual, weight: Tensor | Int4Matrix,
                       norm: Tensor | None = None, eps: float = 0.0,
                       residual: Tensor | None = None, gated: bool = False,
                       out_dtype: torch.dtype | None = None, gelu: bool = False) -> Tensor:
    """silu_mul(rms_norm(x) W^T) or rms_norm(x) W^T + residual, each part if asked for.

    x: (T, in); with `squares` only if the norm's weights are one.  weight: (out, in), of the type
    of x or of 4 bits.  norm: (in,), its weights; None for none.
    residual: (T, out), updated in place and returned; not together with `gated`.
    gelu: the gate's activation is GELU, by tanh.
    Returns (T, out), or (T, out / 2) if gated, in `out_dtype`, by default the type of x.
    """
    if isinstance(x, Residual):
        x = x.x
    if not isinstance(weight, Tensor):
        weight = weight.dense(x.dtype)
    if norm is not None:
        x = rms_norm_torch(x.float(), norm.float(), eps).to(x.dtype)
    if residual is not None:
        residual += torch.nn.functional.linear(x, weight)
        return residual
    y = torch.nn.functional.linear(x, weight)
    if gated:
        y = (gelu_mul_torch if gelu else silu_mul_torch)(y.float())
    return y.to(out_dtype or x.dtype)


def add_linear_torch(x: Tensor, weight: Tensor | Int4Matrix, residual: Tensor,
                     squares: bool = False) -> Residual:
    """residual + x W^T, in place.  squares: the product that comes next takes a norm of it whose
    weights are one, so `Residual.squares` may spare a kernel; they may be left out all the same.
    The rest as for `fused_linear_torch`.
    """
    return Residual(fused_linear_torch(x, weight, residual=residual))
