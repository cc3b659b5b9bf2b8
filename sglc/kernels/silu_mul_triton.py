"""`silu_mul` and `gelu_mul` as one Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs


@triton.jit
def silu_times(gate, up):
    """silu(gate) * up, of float32 blocks."""
    return gate / (1.0 + tl.exp(-gate)) * up


@triton.jit
def gate_times(gate, up, GELU: tl.constexpr):
    """The activation of gate times up, of float32 blocks."""
    if GELU:
        # (1 + tanh(z)) / 2 is 1 / (1 + exp(-2 z)); z = sqrt(2 / pi) (gate + 0.044715 gate^3)
        twice = 1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate)
        return gate / (1.0 + tl.exp(-twice)) * up
    else:
        return silu_times(gate, up)


@triton.jit
def _kernel(both_ptr, out_ptr, width, BLOCK: tl.constexpr, GELU: tl.constexpr,
            OVERLAP: tl.constexpr):
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both_ptr + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both_ptr + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * width + at, gate_times(gate, up, GELU).to(out_ptr.dtype.element_ty),
             mask=inside)


def silu_mul_triton(gate_up: Tensor) -> Tensor:
    """As `silu_mul_torch`, of a contiguous (T, 2 I) of any float type; computed in float32."""
    return gate_mul(gate_up, False)


def gate_mul(gate_up: Tensor, gelu: bool) -> Tensor:
    """`gelu_mul_triton` or `silu_mul_triton`."""
    rows, both = gate_up.shape
    width = both // 2
    out = gate_up.new_empty(rows, width)
    if rows:
        block = min(1024, triton.next_power_of_2(width))
        _kernel[(rows, triton.cdiv(width, block))](gate_up, out, width, BLOCK=block, GELU=gelu,
                                                   num_warps=4, **overlap(gate_up))
    return out
