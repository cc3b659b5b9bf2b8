"""y = x W^T, with weights laid out once for the machine.

Two implementations compute the same product in the weight's type: plain torch, and oneDNN with
prepacked weights (PyTorch ships it; about twice as fast on the CPU at 2 rows and more).
A weight is packed once by the `pack_*` function that belongs to its `linear_*` function.
It does not know what the weights are for.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PACK_FOR_ROWS = 16  # a layout hint for oneDNN; measured best or equal from 1 to 512 rows


def pack_torch(weight: Tensor) -> Tensor:
    """The weight as `linear_torch` wants it: contiguous, shape (out, in)."""
    return weight.contiguous()


def linear_torch(x: Tensor, weight: Tensor) -> Tensor:
    """float32 (T, out) of float32 x (T, in); bfloat16 weights round x and the result to bfloat16.

    In float32 the product is taken as (W x^T)^T, which BLAS does 1.5 to 3 times faster than
    x W^T for 2 to 64 rows.  One row is computed as two: its matrix-vector product runs on a
    single core.
    """
    if weight.dtype is not torch.float32:
        return torch.nn.functional.linear(x.to(weight.dtype), weight).float()
    rows = x.shape[0]
    x = x.expand(2, -1) if rows == 1 else x
    return (weight @ x.contiguous().t()).t()[:rows]


def onednn_available(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the prepacked linear and computes it in `dtype` on this CPU."""
    try:
        if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        x, w = torch.ones(2, 16, dtype=dtype), torch.ones(4, 16, dtype=dtype)
        y = torch.ops.mkldnn._linear_pointwise(
            x, torch.ops.mkldnn._reorder_linear_weight(w, 2), None, "none", [], "")
        return bool((y == 16).all())
    except (AttributeError, RuntimeError, TypeError):
        return False


def pack_onednn(weight: Tensor) -> Tensor:
    """The weight in oneDNN's own blocked layout (an opaque tensor for `linear_onednn` only)."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACK_FOR_ROWS)
    return packed


def linear_onednn(x: Tensor, weight: Tensor) -> Tensor:
    """As `linear_torch`, of a weight from `pack_onednn`."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.to(weight.dtype), weight, None, "none", [], "")
    return y.float()
