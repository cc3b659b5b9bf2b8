"""The gated activation of Gemma's MLP (GEGLU, Shazeer 2020), with the approximate GELU."""

from __future__ import annotations

import torch
from torch import Tensor


def gelu_mul_torch(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up of gate and up side by side, by tanh: (T, 2 I) -> (T, I)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.gelu(gate, approximate="tanh").mul_(up)
