"""The gated activation of Llama's MLP (SwiGLU, Shazeer 2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def silu_mul_torch(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of gate and up side by side: (T, 2 I) -> (T, I)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate).mul_(up)
