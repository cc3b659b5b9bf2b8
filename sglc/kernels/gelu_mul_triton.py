"""`gelu_mul` as a Triton kernel."""

from __future__ import annotations

from torch import Tensor

from sglc.kernels.silu_mul_triton import gate_mul


def gelu_mul_triton(gate_up: Tensor) -> Tensor:
    """As `gelu_mul_torch`, of a contiguous (T, 2 I) of any float type; computed in float32."""
    return gate_mul(gate_up, True)
