"""`fused_linear` of a few rows with a 4-bit weight, as a split-K Triton kernel.

As `small_gemm_triton`, it computes W x^T on x padded to a power of two of rows (at least 16), and
of the programs of one tile the last one adds up.  Codes become weights of the type of x in
registers; a word's eight codes are eight products with every eighth piece of x.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4_pack import BLOCK, PackedInt4, code
from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs

FEWEST_LINES, MOST_LINES = 16, 64
SMALLEST_TILE = 16


class Int4GemmConfig(NamedTuple):
    """A tile's rows of the weight, blocks at a time, in how many parts they are split, and how
    many loads are under way."""

    rows: int
    blocks: int
    splits: int
    stages: int
    warps: int


@triton.jit
def _finish(y, residual_ptr, out_ptr, offsets, inside, RESIDUAL: tl.constexpr):
    if RESIDUAL:
        y += tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["lines"])
def _kernel(x_ptr, words_ptr, scales_ptr, zeros_ptr, residual_ptr, out_ptr, parts_ptr,
            arrived_ptr, lines, blocks, groups, per_group, outs, PER_SPLIT, ROWS: tl.constexpr,
            BLOCKS: tl.constexpr, LINES: tl.constexpr, SPLITS: tl.constexpr,
            STAGES: tl.constexpr, RESIDUAL: tl.constexpr, OVERLAP: tl.constexpr):
    wait_for_inputs(OVERLAP)
    tile, split = tl.program_id(0), tl.program_id(1)
    row = tile * ROWS + tl.arange(0, ROWS)
    line = tl.arange(0, LINES)
    at = tl.arange(0, BLOCKS * 4)  # words
    start = tl.minimum(row, outs - 1).to(tl.int64)[:, None]
    y = tl.zeros([ROWS, LINES], tl.float32)
    first = split * PER_SPLIT
    for block in tl.range(first, tl.minimum(first + PER_SPLIT, blocks), BLOCKS,
                          num_stages=STAGES):
        word = block * 4 + at
        inside = word < blocks * 4
        w = tl.load(words_ptr + start * (blocks * 4) + word[None, :], mask=inside[None, :],
                    other=0)
        group = start * groups + (word // 4 // per_group)[None, :]
        scale = tl.load(scales_ptr + group, mask=inside[None, :], other=0.0).to(tl.float32)
        zero = tl.load(zeros_ptr + group, mask=inside[None, :], other=0).to(tl.float32)
        after_even, after_odd = -(256.0 + zero) * scale, -(16.0 + zero) * scale
        piece = x_ptr + line[None, :] * (blocks * 32) + (word // 4 * 32 + word % 4)[:, None]
        for j in tl.static_range(8):
            x = tl.load(piece + 4 * j, mask=inside[:, None] & (line < lines)[None, :], other=0.0)
            if j % 2 == 1:
                value = code(w, j) * scale + after_odd
            else:
                value = code(w, j) * scale + after_even
            y = tl.dot(value.to(x.dtype), x, y, input_precision="ieee")
    let_next_start(OVERLAP)
    offsets = line[None, :] * outs + row[:, None]
    stored = (row < outs)[:, None] & (line < lines)[None, :]
    if SPLITS == 1:
        _finish(y, residual_ptr, out_ptr, offsets, stored, RESIDUAL)
    else:
        cell = tl.arange(0, ROWS)[:, None] * LINES + line[None, :]
        base = parts_ptr + (tile * SPLITS).to(tl.int64) * (ROWS * LINES) + cell
        tl.store(base + split * (ROWS * LINES), y)
        tl.debug_barrier()  # every thread's part is written before the arrival is
        if tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(arrived_ptr + tile, 0)
            y = tl.zeros([ROWS, LINES], tl.float32)
            for other in tl.static_range(SPLITS):
                y += tl.load(base + other * (ROWS * LINES), cache_modifier=".cg")
            _finish(y, residual_ptr, out_ptr, offsets, stored, RESIDUAL)


def int4_gemm_config(outs: int, width: int, lines: int) -> Int4GemmConfig:
    """The configuration for a weight of `outs` rows."""
    splits = 1 if outs > 16384 else 4 if width > 8192 else 2
    return Int4GemmConfig(64, 4, splits, 3, 4)


def int4_gemm_triton(x: Tensor, weight: PackedInt4, residual: Tensor | None,
                     out_dtype: torch.dtype, config: Int4GemmConfig | None = None) -> Tensor:
    """x W^T, plus the residual, for contiguous x (T, in) in the order of the weight's columns.

    T is at most MOST_LINES.  Products of one weight must not run at the same time.
    """
    outs, blocks = weight.outs, weight.width // BLOCK
    lines = max(FEWEST_LINES, triton.next_power_of_2(len(x)))
    c = config or int4_gemm_config(outs, weight.width, lines)
    out = x.new_empty(len(x), outs, dtype=out_dtype) if residual is None else residual
    tiles = triton.cdiv(outs, c.rows)
    size = tiles * c.splits * c.rows * lines if c.splits > 1 else 0
    parts = x.new_empty(size, dtype=torch.float32) if size else out
    per_split = triton.cdiv(blocks, c.blocks * c.splits) * c.blocks
    _kernel[(tiles, c.splits)](
        x, weight.words, weight.scales, weight.zeros, out, out, parts, weight.arrived, len(x),
        blocks, weight.scales.shape[1], weight.blocks_per_group, outs, per_split, ROWS=c.rows,
        BLOCKS=c.blocks, LINES=lines, SPLITS=c.splits, STAGES=c.stages,
        RESIDUAL=residual is not None, num_warps=c.warps, **overlap(x))
    return out
