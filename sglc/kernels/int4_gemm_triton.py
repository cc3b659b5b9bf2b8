"""`fused_linear` of 9 to 64 rows with a 4-bit weight, as a Triton kernel.

Warps of a team share rows of the weight and split their columns.  Weights and activations
come in the layout of tensor cores' fragments (`int4_pack`, `int4_inputs_triton`), so each lane
loads what it multiplies.  Codes are multiplied as they are; zeros and scales are applied to the
sums of a group (after Marlin, Frantar et al., 2024).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4_inputs_triton import int4_inputs_triton
from sglc.kernels.int4_pack import (
    KINDS,
    TILE,
    WIDE,
    PackedInt4,
    excess,
    fragments,
    over,
    scale_and_zero,
    scale_place,
)
from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.silu_mul_triton import silu_times

MOST_LINES = 64


class Int4GemmConfig(NamedTuple):
    """Tiles of 16 rows of the weight a warp (half of them are of up, if gated), teams of warps,
    which have rows of their own, parts of a team, which share columns between them (a warp may be
    several), warps, and how many loads are under way (1: those of one step)."""

    tiles: int
    teams: int
    parts: int
    warps: int
    stages: int


@triton.jit
def _inputs(x, TILES: tl.constexpr, WARPS: tl.constexpr):
    """(WARPS, 32, 8 TILES) of values (32 WARPS TILES, 8)."""
    x = tl.reshape(x, [TILES, WARPS, 8, 4, 2, 2, 2])  # (tile, warp, n, t, step, half, pair)
    if WIDE:
        x = tl.permute(x, [1, 5, 3, 4, 6, 0, 2])
    else:
        x = tl.permute(x, [1, 4, 5, 3, 6, 0, 2])
    return tl.reshape(x, [WARPS, 32, 8 * TILES])


@triton.jit
def _halves(words, TILES: tl.constexpr, WARPS: tl.constexpr):
    """The first two steps of words (32 WARPS TILES, 4), and the others."""
    words = tl.reshape(words, [TILES, WARPS, 32, 2, 2])
    return tl.split(tl.permute(words, [0, 1, 2, 4, 3]))


@triton.jit
def _place(tile, outs, OWN: tl.constexpr, GATED: tl.constexpr):
    """Where a program's tiles are, from its first one; the second half is of up, if gated."""
    if GATED:
        return tile % OWN + tile // OWN * (outs // 16)
    else:
        return tile


@triton.jit(do_not_specialize=["lines", "over"])
def _kernel(x_ptr, sums_ptr, words_ptr, scales_ptr, residual_ptr, out_ptr, over, lines,
            outs, spans, groups, last_tile, TILES: tl.constexpr, TEAMS: tl.constexpr,
            PARTS: tl.constexpr, LINES: tl.constexpr, GROUP: tl.constexpr,
            PIECE: tl.constexpr, STAGES: tl.constexpr, ONCE: tl.constexpr, EVEN: tl.constexpr,
            SCALE: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
            OVERLAP: tl.constexpr):
    KIND: tl.constexpr = x_ptr.dtype.element_ty
    QUARTERS: tl.constexpr = PIECE // 32  # of a span, whose sums have one scale
    PIECES: tl.constexpr = 128 // PIECE
    X: tl.constexpr = LINES // 8
    OWN: tl.constexpr = TILES // 2 if GATED else TILES
    ROWS: tl.constexpr = 16 * OWN
    WARPS: tl.constexpr = TEAMS * PARTS
    first = tl.program_id(0) * (TEAMS * OWN)
    warp = tl.arange(0, WARPS)
    part = warp % PARTS
    row = tl.arange(0, 16 * TILES)[None, :]
    tile = first + (warp // PARTS * OWN)[:, None] + _place(row // 16, outs, OWN, GATED)
    rows = scale_place(tl.minimum(tile, last_tile), row % 16, groups)
    # Loads are two-dimensional, (lanes of all warps, and all tiles, words of a lane): of more
    # dimensions compilers do not all give lanes to the same one.
    at = tl.arange(0, TILES * WARPS * 32)
    lane, mine = at % 32, at // 32 % PARTS
    tile = first + at // 32 % WARPS // PARTS * OWN + _place(at // (32 * WARPS), outs, OWN, GATED)
    words_at = words_ptr + (tl.minimum(tile, last_tile).to(tl.int64) * (spans * 256)
                            + lane * 4)[:, None] + tl.arange(0, 4)[None, :]
    x_at = tl.arange(0, X * WARPS * 32)
    x_mine, x_lane, x_tile = x_at // 32 % PARTS, x_at % 32, x_at // (32 * WARPS)
    values_at = x_ptr + (x_tile * 512 + x_lane * 8)[:, None] + tl.arange(0, 8)[None, :]
    real = (x_tile * 8 + x_lane // 4 < lines)[:, None]
    line = tl.arange(0, LINES)[None, :]
    y = tl.zeros([WARPS, 16 * TILES, LINES], tl.float32)
    if ONCE:
        own = words_at + (mine if EVEN else tl.minimum(mine, spans - 1))[:, None] * 256
        left, right = tl.load(own), tl.load(own + 128)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    for span in tl.range(0, spans, PARTS, num_stages=STAGES):
        exists = real
        here, w_span, x_span = span + part, span + mine, span + x_mine
        if not EVEN:
            exists = real & (x_span < spans)[:, None]
            here, w_span = tl.minimum(here, spans - 1), tl.minimum(w_span, spans - 1)
            x_span = tl.minimum(x_span, spans - 1)
        if not ONCE:
            words_of = words_at + w_span[:, None] * 256
            left, right = tl.load(words_of), tl.load(words_of + 128)
        values = values_at + x_span[:, None] * (X * 1024)
        acc = tl.zeros([WARPS, 16 * TILES, LINES], tl.float32)
        for quarter in tl.static_range(4):
            if quarter % 2 == 0:
                words, others = _halves(left if quarter == 0 else right, TILES, WARPS)
            else:
                words = others
            x = tl.load(values + (quarter // 2 * (X * 512) + quarter % 2 * 256), mask=exists,
                        other=0.0)
            codes = fragments(words, over, TILES, WARPS, 2, KIND, WIDE)
            acc = tl.dot(codes, _inputs(x, X, WARPS), acc, input_precision="ieee")
            if (quarter + 1) % QUARTERS == 0:
                piece = here * PIECES + quarter // QUARTERS
                sums = tl.load(sums_ptr + piece[:, None] * LINES + line)
                if not EVEN:
                    sums = tl.where((span + part < spans)[:, None], sums, 0.0)
                group = tl.minimum(piece * PIECE // GROUP, groups - 1)[:, None] * 16 + rows
                scale, zero = scale_and_zero(tl.load(scales_ptr + group), SCALE)
                shift = (zero + excess(KIND)) * scale
                y += acc * scale[:, :, None] - sums[:, None, :] * shift[:, :, None]
                acc = tl.zeros([WARPS, 16 * TILES, LINES], tl.float32)
    out = tl.sum(tl.reshape(y, [TEAMS, PARTS, 16 * TILES, LINES]), axis=1)
    if GATED:
        out = tl.permute(tl.reshape(out, [TEAMS, 2, ROWS, LINES]), [0, 2, 3, 1])
        gate, up = tl.split(out)
        out = silu_times(gate, up)
    out = tl.reshape(out, [TEAMS * ROWS, LINES])
    row = first * 16 + tl.arange(0, TEAMS * ROWS)[:, None]
    at = line * outs + row
    inside = (row < outs) & (line < lines)
    if RESIDUAL:
        out += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)


def int4_gemm_config(outs: int, lines: int, gated: bool) -> Int4GemmConfig:
    """The configuration for a weight of `outs` rows (half of them, if gated)."""
    if lines > 32:  # more x than shared memory holds twice
        return Int4GemmConfig(2, 1, 4, 4, 1)
    if lines > 16:
        return Int4GemmConfig(2, 1, 4, 4, 2)
    if outs > 8192:
        return Int4GemmConfig(2, 1, 4, 4, 3)
    return Int4GemmConfig(1 + (gated or outs > 4096), 1, 4, 4, 4)


def int4_gemm_triton(x: Tensor, weight: PackedInt4, norm: Tensor | None, eps: float,
                     residual: Tensor | None, gated: bool, out_dtype: torch.dtype,
                     config: Int4GemmConfig | None = None) -> Tensor:
    """`fused_linear` for contiguous x (T, in), T at most MOST_LINES.

    If gated, half the rows of the weight have to be whole tiles.
    """
    outs = weight.outs // 2 if gated else weight.outs
    inputs = int4_inputs_triton(x, weight, norm, eps)
    lines = inputs.sums.shape[1]
    c = config or int4_gemm_config(outs, lines, gated)
    spans = weight.words.shape[1]
    out = x.new_empty(len(x), outs, dtype=out_dtype) if residual is None else residual
    per_program = TILE * c.tiles * c.teams // (2 if gated else 1)
    _kernel[(triton.cdiv(outs, per_program),)](
        inputs.values, inputs.sums, weight.words, weight.scales, out, out,
        over(x.dtype), len(x), outs, spans, weight.scales.shape[1],
        len(weight.words) - 1,
        TILES=c.tiles, TEAMS=c.teams, PARTS=c.parts, LINES=lines, GROUP=weight.group,
        PIECE=inputs.piece, STAGES=c.stages, ONCE=spans <= c.parts, SCALE=KINDS[weight.kind],
        EVEN=spans % c.parts == 0, RESIDUAL=residual is not None, GATED=gated,
        num_warps=c.warps, **overlap(x))
    return out
