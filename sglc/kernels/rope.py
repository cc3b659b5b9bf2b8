"""Rotary position embedding (Su et al., 2021), in the half-split order of Hugging Face weights."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_frequencies(head_dim: int, theta: float) -> Tensor:
    """Radians a position, float32 (head_dim / 2,): theta^(-2 i / head_dim)."""
    even = torch.arange(0, head_dim, 2, dtype=torch.int64).float()
    return 1.0 / (theta ** (even / head_dim))


def rope_angles_torch(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) for `rope`, float32 (T, 1, head_dim); the first half of sin is negated.

    One pair serves every layer of a step.
    """
    angles = positions.float()[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]


def rope_torch(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x of shape (T, heads, head_dim) with dimensions i and i + head_dim / 2 rotated as a pair."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
