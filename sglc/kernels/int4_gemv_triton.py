"""`fused_linear` of one row with a 4-bit weight, as a Triton kernel bound by reading the weight.

As `gemv_triton`, a program takes a few rows of the weight whole.  Codes are multiplied as they
come, with what `int4_pack.code` adds; the sums of x and of what was added, which rows share, and
the zeros are taken off each block's sum before its scale is applied.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4_pack import BLOCK, PackedInt4, code
from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.silu_mul_triton import silu_times


class Int4GemvConfig(NamedTuple):
    """Rows of the weight (of gate and of up each, if gated) and blocks at a time a program."""

    rows: int
    blocks: int
    warps: int


@triton.jit
def _piece(words_ptr, start, block, part, blocks, EVEN: tl.constexpr):
    at = words_ptr + start * (blocks * 4) + block * 4 + part
    if EVEN:
        return tl.load(at, eviction_policy="evict_first")
    else:
        return tl.load(at, mask=block < blocks, other=0, eviction_policy="evict_first")


@triton.jit
def _scaled(sums, added, whole, scales_ptr, zeros_ptr, start, groups, group):
    """The product of a block, of its sum with what codes have added and with no zero."""
    scale = tl.load(scales_ptr + start * groups + group).to(tl.float32)
    zero = tl.load(zeros_ptr + start * groups + group).to(tl.float32)
    return (tl.sum(sums, axis=2, keep_dims=True) - added - zero * whole) * scale


@triton.jit
def _kernel(x_ptr, words_ptr, scales_ptr, zeros_ptr, order_ptr, norm_ptr, residual_ptr, out_ptr,
            blocks, groups, per_group, outs, eps, ROWS: tl.constexpr, BLOCKS: tl.constexpr,
            EVEN: tl.constexpr, ORDERED: tl.constexpr, NORM: tl.constexpr,
            RESIDUAL: tl.constexpr, GATED: tl.constexpr, OVERLAP: tl.constexpr):
    first = tl.program_id(0) * ROWS
    row = first + tl.arange(0, ROWS)
    # Rows past the end are read from the last one and not stored.
    start = tl.minimum(row, outs - 1).to(tl.int64)[:, None, None]
    lower = start + outs
    at = tl.arange(0, BLOCKS)[None, :, None]
    part = tl.arange(0, 4)[None, None, :]
    total = tl.zeros([ROWS, BLOCKS, 1], tl.float32)
    up = tl.zeros([ROWS, BLOCKS, 1], tl.float32)
    squares = tl.zeros([1, BLOCKS, 4], tl.float32)
    w = _piece(words_ptr, start, at, part, blocks, EVEN)
    v = w
    if GATED:
        v = _piece(words_ptr, lower, at, part, blocks, EVEN)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    for block in range(0, blocks, BLOCKS):
        here = block + at
        inside = here + part * 0 < blocks
        sums = tl.zeros([ROWS, BLOCKS, 4], tl.float32)
        up_sums = tl.zeros([ROWS, BLOCKS, 4], tl.float32)
        added = tl.zeros([1, BLOCKS, 4], tl.float32)
        whole = tl.zeros([1, BLOCKS, 4], tl.float32)
        for j in tl.static_range(8):
            column = here * 32 + (4 * j + part)
            if ORDERED:
                column = tl.load(order_ptr + column, mask=inside | EVEN, other=0)
            x = tl.load(x_ptr + column, mask=inside | EVEN, other=0.0).to(tl.float32)
            if NORM:
                n = tl.load(norm_ptr + column, mask=inside | EVEN, other=0.0).to(tl.float32)
                squares += x * x
                x = x * n
            sums += code(w, j) * x
            if GATED:
                up_sums += code(v, j) * x
            whole += x
            if j % 2 == 1:
                added += 16.0 * x
            else:
                added += 256.0 * x
        whole = tl.sum(whole, axis=2, keep_dims=True)
        added = tl.sum(added, axis=2, keep_dims=True)
        group = tl.minimum(here, blocks - 1) // per_group
        total += _scaled(sums, added, whole, scales_ptr, zeros_ptr, start, groups, group)
        if GATED:
            up += _scaled(up_sums, added, whole, scales_ptr, zeros_ptr, lower, groups, group)
        if block + BLOCKS < blocks:
            w = _piece(words_ptr, start, here + BLOCKS, part, blocks, EVEN)
            if GATED:
                v = _piece(words_ptr, lower, here + BLOCKS, part, blocks, EVEN)
    y = tl.sum(tl.reshape(total, [ROWS, BLOCKS]), axis=1)
    if NORM:
        mean = tl.sum(tl.reshape(squares, [BLOCKS * 4]), axis=0) / (blocks * 32)
        scale = 1.0 / tl.sqrt(mean + eps)
        y = y * scale
    if GATED:
        z = tl.sum(tl.reshape(up, [ROWS, BLOCKS]), axis=1)
        if NORM:
            z = z * scale
        y = silu_times(y, z)
    exists = row < outs
    if RESIDUAL:
        y += tl.load(residual_ptr + row, mask=exists, other=0.0).to(tl.float32)
    tl.store(out_ptr + row, y.to(out_ptr.dtype.element_ty), mask=exists)


def int4_gemv_config(outs: int, width: int, gated: bool) -> Int4GemvConfig:
    """The configuration for a weight of `outs` rows (half of them, if gated)."""
    blocks = min(64, triton.next_power_of_2(width // BLOCK))
    return Int4GemvConfig(4 if gated else 8, blocks, 2)


def int4_gemv_triton(x: Tensor, weight: PackedInt4, norm: Tensor | None, eps: float,
                     residual: Tensor | None, gated: bool, out_dtype: torch.dtype,
                     config: Int4GemvConfig | None = None) -> Tensor:
    """`fused_linear` for contiguous x (1, in)."""
    outs = weight.outs // 2 if gated else weight.outs
    blocks = weight.width // BLOCK
    c = config or int4_gemv_config(outs, weight.width, gated)
    out = x.new_empty(1, outs, dtype=out_dtype) if residual is None else residual
    _kernel[(triton.cdiv(outs, c.rows),)](
        x, weight.words, weight.scales, weight.zeros,
        weight.words if weight.order is None else weight.order, x if norm is None else norm, out,
        out, blocks, weight.scales.shape[1], weight.blocks_per_group, outs, eps, ROWS=c.rows,
        BLOCKS=c.blocks, EVEN=blocks % c.blocks == 0, ORDERED=weight.order is not None,
        NORM=norm is not None, RESIDUAL=residual is not None, GATED=gated, num_warps=c.warps,
        **overlap(x))
    return out
