"""Root-mean-square normalisation (Zhang and Sennrich, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm_torch(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, (T, H) in the type of x; where
    the weight's type is another, computed in float32."""
    if weight.dtype is not x.dtype:
        return rms_norm_torch(x.float(), weight.float(), eps).to(x.dtype)
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def rms_norm_add_torch(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Adds the norm of x to `residual` in place and returns it; (T, H), of one type."""
    residual += rms_norm_torch(x.float(), weight.float(), eps)
    return residual
