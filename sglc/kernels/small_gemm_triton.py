"""`fused_linear` of 2 to 16 rows, as a split-K Triton kernel bound by reading the weight once.

It computes the transpose, W x^T, since matrix units want many rows on the left; x is padded to 16
rows, so a row's result does not depend on how many there are.  Programs of one tile leave partial
sums; the one that arrives last adds them up in their order, so the result is always the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.silu_mul_triton import gate_times

MAX_ROWS = 16
SMALLEST_TILE = 16


class SmallConfig(NamedTuple):
    """A tile's rows of the weight (of gate and of up each, if gated), columns at a time, in how
    many parts the columns are split, and how many loads are under way."""

    rows: int
    columns: int
    splits: int
    stages: int
    warps: int


@triton.jit
def _finish(y, z, squares, residual_ptr, out_ptr, row, line, offsets, inside, width, eps,
            NORM: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr, GELU: tl.constexpr):
    if NORM:
        scale = (1.0 / tl.sqrt(squares / width + eps))[None, :]
        y = y * scale
        z = z * scale
    if GATED:
        y = gate_times(y, z, GELU)
    if RESIDUAL:
        y += tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["lines"])
def _kernel(x_ptr, w_ptr, norm_ptr, residual_ptr, out_ptr, parts_ptr, arrived_ptr, lines, width,
            outs, eps, PER_SPLIT, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
            LINES: tl.constexpr, SPLITS: tl.constexpr, STAGES: tl.constexpr, NORM: tl.constexpr,
            RESIDUAL: tl.constexpr, GATED: tl.constexpr, GELU: tl.constexpr,
            OVERLAP: tl.constexpr):
    wait_for_inputs(OVERLAP)
    tile, split = tl.program_id(0), tl.program_id(1)
    row = tile * ROWS + tl.arange(0, ROWS)
    line = tl.arange(0, LINES)
    at = tl.arange(0, COLUMNS)
    start = tl.minimum(row, outs - 1).to(tl.int64) * width
    lower = w_ptr + outs.to(tl.int64) * width
    y = tl.zeros([ROWS, LINES], tl.float32)
    z = tl.zeros([ROWS, LINES], tl.float32)
    squares = tl.zeros([LINES], tl.float32)
    first = split * PER_SPLIT
    for column in tl.range(first, tl.minimum(first + PER_SPLIT, width), COLUMNS,
                           num_stages=STAGES):
        here = column + at
        inside = here < width
        w = tl.load(w_ptr + start[:, None] + here[None, :], mask=inside[None, :], other=0.0)
        if GATED:
            v = tl.load(lower + start[:, None] + here[None, :], mask=inside[None, :], other=0.0)
        x = tl.load(x_ptr + line[None, :] * width + here[:, None],
                    mask=inside[:, None] & (line < lines)[None, :], other=0.0)
        if NORM:
            n = tl.load(norm_ptr + here, mask=inside, other=0.0).to(tl.float32)
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=0)
            x = (wide * n[:, None]).to(x.dtype)
        y = tl.dot(w, x, y, input_precision="ieee")
        if GATED:
            z = tl.dot(v, x, z, input_precision="ieee")
    let_next_start(OVERLAP)  # not before: its programs would crowd some processors
    offsets = line[None, :] * outs + row[:, None]
    stored = (row < outs)[:, None] & (line < lines)[None, :]
    if SPLITS == 1:
        _finish(y, z, squares, residual_ptr, out_ptr, row, line, offsets, stored, width, eps,
                NORM, RESIDUAL, GATED, GELU)
    else:
        SIZE: tl.constexpr = ROWS * LINES
        STEP: tl.constexpr = 2 * SIZE + LINES
        cell = tl.arange(0, ROWS)[:, None] * LINES + line[None, :]
        mine = parts_ptr + (tile * SPLITS + split).to(tl.int64) * STEP
        tl.store(mine + cell, y)
        if GATED:
            tl.store(mine + SIZE + cell, z)
        if NORM:
            tl.store(mine + 2 * SIZE + line, squares)
        tl.debug_barrier()  # every thread's part is written before the arrival is
        if tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(arrived_ptr + tile, 0)
            y = tl.zeros([ROWS, LINES], tl.float32)
            z = tl.zeros([ROWS, LINES], tl.float32)
            squares = tl.zeros([LINES], tl.float32)
            for other in tl.static_range(SPLITS):
                part = parts_ptr + (tile * SPLITS + other).to(tl.int64) * STEP
                y += tl.load(part + cell, cache_modifier=".cg")
                if GATED:
                    z += tl.load(part + SIZE + cell, cache_modifier=".cg")
                if NORM:
                    squares += tl.load(part + 2 * SIZE + line, cache_modifier=".cg")
            _finish(y, z, squares, residual_ptr, out_ptr, row, line, offsets, stored, width, eps,
                    NORM, RESIDUAL, GATED, GELU)


def small_config(outs: int, width: int, gated: bool, norm: bool) -> SmallConfig:
    """The configuration for a weight of `outs` rows (half of them, if gated); measured."""
    if outs < 64:
        return SmallConfig(16, 32, 2, 2, 4)
    if gated:
        return SmallConfig(128, 64, 1, 4, 4)
    if outs > 32768:
        return SmallConfig(128, 128, 1, 3, 8)
    if norm:
        return SmallConfig(64, 64, 2, 6, 4)
    return SmallConfig(64, 128, 4, 3, 4) if width > 8192 else SmallConfig(64, 128, 2, 5, 4)


def small_gemm_triton(x: Tensor, weight: Tensor, arrived: Tensor, norm: Tensor | None, eps: float,
                      residual: Tensor | None, gated: bool, out_dtype: torch.dtype,
                      config: SmallConfig | None = None, gelu: bool = False) -> Tensor:
    """`fused_linear` for contiguous x (T, in), T <= MAX_ROWS.

    arrived: zeros, int32, one for SMALLEST_TILE outputs; left as zeros.  Not to be shared with a
    product that may run at the same time.
    """
    outs, width = weight.shape
    outs = outs // 2 if gated else outs
    c = config or small_config(outs, width, gated, norm is not None)
    out = x.new_empty(len(x), outs, dtype=out_dtype) if residual is None else residual
    tiles = triton.cdiv(outs, c.rows)
    size = tiles * c.splits * (2 * c.rows + 1) * MAX_ROWS if c.splits > 1 else 0
    parts = x.new_empty(size, dtype=torch.float32) if size else out
    per_split = triton.cdiv(width, c.columns * c.splits) * c.columns
    _kernel[(tiles, c.splits)](
        x, weight, x if norm is None else norm, out, out, parts, arrived, len(x), width, outs, eps,
        per_split, ROWS=c.rows, COLUMNS=c.columns, LINES=MAX_ROWS, SPLITS=c.splits,
        STAGES=c.stages, NORM=norm is not None, RESIDUAL=residual is not None, GATED=gated,
        GELU=gelu, num_warps=c.warps, **overlap(x))
    return out
