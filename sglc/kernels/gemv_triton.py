"""`fused_linear` of one row, as a Triton kernel bound by reading the weight once.

A program takes a few rows of the weight whole, so that nothing is summed across programs.  The
norm's scale is the same for the whole row: it multiplies the result, and every program finds it
from the x that it reads anyway.  Its first piece of the weight is under way before x is there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.silu_mul_triton import gate_times


class GemvConfig(NamedTuple):
    """Rows of the weight (of gate and of up each, if gated) and columns at a time a program."""

    rows: int
    columns: int
    warps: int


@triton.jit
def _piece(w_ptr, start, here, width, EVEN: tl.constexpr):
    offsets = start[:, None] + here[None, :]
    if EVEN:
        return tl.load(w_ptr + offsets, eviction_policy="evict_first")
    else:
        return tl.load(w_ptr + offsets, mask=(here < width)[None, :], other=0.0,
                       eviction_policy="evict_first")


@triton.jit
def _kernel(x_ptr, w_ptr, norm_ptr, residual_ptr, out_ptr, width, outs, eps,
            ROWS: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, NORM: tl.constexpr,
            RESIDUAL: tl.constexpr, GATED: tl.constexpr, GELU: tl.constexpr,
            OVERLAP: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < outs
    # Rows past the end are read from the last one and not stored.
    start = tl.minimum(row, outs - 1).to(tl.int64) * width
    at = tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    up = tl.zeros([ROWS, COLUMNS], tl.float32)
    squares = tl.zeros([COLUMNS], tl.float32)
    lower = w_ptr + outs.to(tl.int64) * width
    w = _piece(w_ptr, start, at, width, EVEN)
    v = w
    if GATED:
        v = _piece(lower, start, at, width, EVEN)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    for column in range(0, width, COLUMNS):
        here = column + at
        x = tl.load(x_ptr + here, mask=(here < width) | EVEN, other=0.0).to(tl.float32)
        if NORM:
            n = tl.load(norm_ptr + here, mask=(here < width) | EVEN, other=0.0).to(tl.float32)
            squares += x * x
            x = x * n
        total += w.to(tl.float32) * x[None, :]
        if GATED:
            up += v.to(tl.float32) * x[None, :]
        if column + COLUMNS < width:
            w = _piece(w_ptr, start, here + COLUMNS, width, EVEN)
            if GATED:
                v = _piece(lower, start, here + COLUMNS, width, EVEN)
    y = tl.sum(total, axis=1)
    if NORM:
        scale = 1.0 / tl.sqrt(tl.sum(squares, axis=0) / width + eps)
        y = y * scale
    if GATED:
        z = tl.sum(up, axis=1)
        if NORM:
            z = z * scale
        y = gate_times(y, z, GELU)
    if RESIDUAL:
        y += tl.load(residual_ptr + row, mask=exists, other=0.0).to(tl.float32)
    tl.store(out_ptr + row, y.to(out_ptr.dtype.element_ty), mask=exists)


def gemv_config(outs: int, width: int, gated: bool) -> GemvConfig:
    """The configuration for a weight of `outs` rows (half of them, if gated); measured."""
    columns = triton.next_power_of_2(width)
    if gated:
        return GemvConfig(2, min(512, columns), 2)
    if outs > 32768:
        return GemvConfig(4, min(1024, columns), 4)
    if outs > 4096:
        return GemvConfig(8, min(512, columns), 4)
    return GemvConfig(4, min(1024, columns), 2)


def gemv_triton(x: Tensor, weight: Tensor, norm: Tensor | None, eps: float,
                residual: Tensor | None, gated: bool, out_dtype: torch.dtype,
                config: GemvConfig | None = None, gelu: bool = False) -> Tensor:
    """`fused_linear` for contiguous x (1, in)."""
    outs, width = weight.shape
    outs = outs // 2 if gated else outs
    c = config or gemv_config(outs, width, gated)
    out = x.new_empty(1, outs, dtype=out_dtype) if residual is None else residual
    _kernel[(triton.cdiv(outs, c.rows),)](
        x, weight, x if norm is None else norm, out, out, width, outs, eps, ROWS=c.rows,
        COLUMNS=c.columns, EVEN=width % c.columns == 0, NORM=norm is not None,
        RESIDUAL=residual is not None, GATED=gated, GELU=gelu,
        num_warps=c.warps, **overlap(x))
    return out
