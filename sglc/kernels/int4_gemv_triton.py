"""`fused_linear` of one row with a 4-bit weight, as a Triton kernel bound by reading the weight.

As `gemv_triton`, a program takes a few rows of the weight whole.  A thread takes 16 bytes of each
of some rows at a time, which are of one group, and the x that they meet serves all of its rows.
Codes are multiplied as they come, with what `int4_pack.code` adds; the sums of x and of what was
added, which rows share, and the zeros are taken off each piece's sum before its scale is applied.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4_pack import PIECE, PackedInt4, code
from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.silu_mul_triton import silu_times


class Int4GemvConfig(NamedTuple):
    """Rows of the weight (of gate and of up each, if gated) a thread, and threads of a warp that
    have rows of their own: the other threads, and all warps, share the columns."""

    rows: int
    teams: int
    warps: int


@triton.jit
def _words(rows_ptr, piece, pieces, EVEN: tl.constexpr):
    at = rows_ptr + (piece * 4 + tl.arange(0, 4)[None, None, None, None, :])
    if EVEN:
        return tl.load(at, eviction_policy="evict_first")
    else:
        return tl.load(at, mask=piece < pieces, other=0, eviction_policy="evict_first")


@triton.jit
def _scales(scales_ptr, zeros_ptr, row, piece, pieces, per_group, all_outs, end):
    """Of the rows' pieces; those of a thread lie side by side."""
    at = tl.minimum(piece, pieces - 1) // per_group * all_outs + row
    scale = tl.load(scales_ptr + at, mask=row < end, other=0.0)
    return scale, tl.load(zeros_ptr + at, mask=row < end, other=0)


@triton.jit
def _scaled(sums, added, whole, scale, zero):
    """The product of a piece, of its sum with what codes have added and with no zero."""
    return (tl.sum(sums, axis=4) - added - zero.to(tl.float32) * whole) * scale.to(tl.float32)


@triton.jit
def _kernel(x_ptr, words_ptr, scales_ptr, zeros_ptr, norm_ptr, residual_ptr, out_ptr, pieces,
            per_group, outs, all_outs, eps, ROWS: tl.constexpr, TEAMS: tl.constexpr,
            WARPS: tl.constexpr, SPAN: tl.constexpr, EVEN: tl.constexpr, NORM: tl.constexpr,
            RESIDUAL: tl.constexpr, GATED: tl.constexpr, OVERLAP: tl.constexpr):
    # Axes: a thread's rows, warps, a warp's teams, a team's threads, a thread's words.
    LANES: tl.constexpr = 32 // TEAMS
    WORDS: tl.constexpr = SPAN // 8
    team = tl.arange(0, TEAMS)
    row = tl.program_id(0) * (ROWS * TEAMS) + tl.arange(0, ROWS)[:, None] + team[None, :] * ROWS
    exists = row < outs
    mine = row[:, None, :, None]
    # Rows past the end are read from the last one and not stored.
    start = tl.minimum(row, outs - 1).to(tl.int64)[:, None, :, None, None] * (pieces * 4)
    rows_ptr = words_ptr + start
    lower_ptr = rows_ptr + outs.to(tl.int64) * (pieces * 4)
    thread = tl.arange(0, WARPS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    # As many as there are threads, teams included: all tensors lie in threads alike.
    at = (thread[:, None, :] + 0 * team[None, :, None])[None, :, :, :, None]
    column_of = thread[None, :, None, :]
    total = tl.zeros([ROWS, WARPS, TEAMS, LANES], tl.float32)
    up = tl.zeros([ROWS, WARPS, TEAMS, LANES], tl.float32)
    squares = tl.zeros([1, WARPS, TEAMS, LANES, 4], tl.float32)
    w = _words(rows_ptr, at, pieces, EVEN)
    scale, zero = _scales(scales_ptr, zeros_ptr, mine, column_of, pieces, per_group, all_outs,
                          outs)
    v, up_scale, up_zero = w, scale, zero
    if GATED:
        v = _words(lower_ptr, at, pieces, EVEN)
        up_scale, up_zero = _scales(scales_ptr, zeros_ptr, outs + mine, column_of, pieces,
                                    per_group, all_outs, all_outs)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    for first in range(0, pieces, WARPS * LANES):
        piece = first + at
        column = (piece // (WORDS // 4) * SPAN + piece % (WORDS // 4) * 4
                  + tl.arange(0, 4)[None, None, None, None, :])
        inside = (piece < pieces) | EVEN
        sums = tl.zeros([ROWS, WARPS, TEAMS, LANES, 4], tl.float32)
        up_sums = tl.zeros([ROWS, WARPS, TEAMS, LANES, 4], tl.float32)
        even = tl.zeros([1, WARPS, TEAMS, LANES, 4], tl.float32)
        odd = tl.zeros([1, WARPS, TEAMS, LANES, 4], tl.float32)
        for j in tl.static_range(8):
            x = tl.load(x_ptr + column + j * WORDS, mask=inside, other=0.0).to(tl.float32)
            if NORM:
                n = tl.load(norm_ptr + column + j * WORDS, mask=inside, other=0.0)
                squares += x * x
                x = x * n.to(tl.float32)
            sums += code(w, j) * x
            if GATED:
                up_sums += code(v, j) * x
            if j % 2 == 1:
                odd += x
            else:
                even += x
        whole_even, whole_odd = tl.sum(even, axis=4), tl.sum(odd, axis=4)
        added = 256.0 * whole_even + 16.0 * whole_odd
        whole = whole_even + whole_odd
        total += _scaled(sums, added, whole, scale, zero)
        if GATED:
            up += _scaled(up_sums, added, whole, up_scale, up_zero)
        next = first + WARPS * LANES
        if next < pieces:
            w = _words(rows_ptr, next + at, pieces, EVEN)
            scale, zero = _scales(scales_ptr, zeros_ptr, mine, next + column_of, pieces,
                                  per_group, all_outs, outs)
            if GATED:
                v = _words(lower_ptr, next + at, pieces, EVEN)
                up_scale, up_zero = _scales(scales_ptr, zeros_ptr, outs + mine, next + column_of,
                                            pieces, per_group, all_outs, all_outs)
    y = tl.sum(tl.sum(total, axis=3), axis=1)
    if NORM:
        mean = tl.sum(tl.sum(tl.sum(squares, axis=4), axis=3), axis=1) / (pieces * 32)
        rms = 1.0 / tl.sqrt(mean + eps)
        y = y * rms
    if GATED:
        z = tl.sum(tl.sum(up, axis=3), axis=1)
        if NORM:
            z = z * rms
        y = silu_times(y, z)
    if RESIDUAL:
        y += tl.load(residual_ptr + row, mask=exists, other=0.0).to(tl.float32)
    tl.store(out_ptr + row, y.to(out_ptr.dtype.element_ty), mask=exists)


def int4_gemv_config(outs: int, width: int, gated: bool) -> Int4GemvConfig:
    """The configuration for a weight of `outs` rows (half of them, if gated)."""
    lanes = triton.next_power_of_2(width // PIECE)
    return Int4GemvConfig(4 if gated else 8, 2, max(1, min(8, lanes // 16)))


def int4_gemv_triton(x: Tensor, weight: PackedInt4, norm: Tensor | None, eps: float,
                     residual: Tensor | None, gated: bool, out_dtype: torch.dtype,
                     config: Int4GemvConfig | None = None) -> Tensor:
    """`fused_linear` for contiguous x (1, in) in the order of the weight's columns."""
    outs = weight.outs // 2 if gated else weight.outs
    pieces = weight.width // PIECE
    c = config or int4_gemv_config(outs, weight.width, gated)
    out = x.new_empty(1, outs, dtype=out_dtype) if residual is None else residual
    _kernel[(triton.cdiv(outs, c.rows * c.teams),)](
        x, weight.words, weight.scales, weight.zeros, x if norm is None else norm, out, out,
        pieces, weight.group_size // PIECE, outs, weight.outs, eps, ROWS=c.rows, TEAMS=c.teams,
        WARPS=c.warps, SPAN=weight.span, EVEN=pieces % (c.warps * (32 // c.teams)) == 0,
        NORM=norm is not None, RESIDUAL=residual is not None, GATED=gated, num_warps=c.warps,
        **overlap(x))
    return out
