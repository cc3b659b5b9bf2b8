"""`fused_linear` of up to eight rows with a 4-bit weight, as a Triton kernel bound by reading it.

Warps of a program share 16 rows of the weight (of gate and of up each, if gated) and split their
columns, in rounds: those of one are multiplied while those of the next come into registers, and
the first ones are on their way before the kernel before this one has ended.  Codes are multiplied
as they are; zeros and scales are applied to the sums of a group (after Marlin, Frantar et al.,
2024), and the sums of x that zeros need are one more product, with ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4_pack import (
    KINDS,
    SPAN,
    TILE,
    WIDE,
    PackedInt4,
    excess,
    fragments,
    over,
    scale_and_zero,
)
from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.silu_mul_triton import silu_times

FEW_LINES = 8


class Int4FewConfig(NamedTuple):
    """Spans of columns in a round, and warps that share them."""

    parts: int
    warps: int


@triton.jit
def _inputs(x, PARTS: tl.constexpr, KIND: tl.constexpr, ORDER: tl.constexpr):
    """(PARTS, 32, 8) of values, as `_values` has them, in the order of `fragments`."""
    if KIND != tl.float32:
        x = tl.join((x & 0xFFFF).to(tl.int16).to(KIND, bitcast=True),
                    (x >> 16).to(tl.int16).to(KIND, bitcast=True))
    x = tl.reshape(x, [PARTS, 8, 4, 2, 2, 2])  # (part, n, t, step, half, pair)
    if ORDER:
        x = tl.permute(x, [0, 4, 2, 3, 5, 1])
    else:
        x = tl.permute(x, [0, 3, 4, 2, 5, 1])
    return tl.reshape(x, [PARTS, 32, 8])


@triton.jit
def _quarters(words, PARTS: tl.constexpr):
    """The first two steps of words (32 PARTS, 4), and the others."""
    return tl.split(tl.permute(tl.reshape(words, [1, PARTS, 32, 2, 2]), [0, 1, 2, 4, 3]))


@triton.jit
def _words(words_at, scales_at, mine, first, spans, groups, PIECE: tl.constexpr,
           GROUP: tl.constexpr, EVEN: tl.constexpr):
    """Of the round that begins with span `first`: both halves of its words, and scales and zeros
    of each of its spans' pieces, (..., 2)."""
    PIECES: tl.constexpr = 128 // PIECE
    span = mine + first
    if not EVEN:
        span = tl.minimum(span, spans - 1)
    at = words_at + span[:, None] * 256
    found = (tl.load(at, eviction_policy="evict_first"),
             tl.load(at + 128, eviction_policy="evict_first"))
    for p in tl.static_range(PIECES):
        group = tl.minimum((span * PIECES + p) * PIECE // GROUP, groups - 1)
        found += (tl.load(scales_at + group[:, None] * 16),)
    return found


@triton.jit
def _values(x_at, column, first, width, EACH: tl.constexpr, EVEN: tl.constexpr):
    """Of that round: x in four parts, (32 PARTS, 8 / EACH), EACH values a word."""
    found = ()
    for quarter in tl.static_range(4):
        at = first * (128 // EACH) + quarter * (32 // EACH)
        if EVEN:
            found += (tl.load(x_at + at),)
        else:
            found += (tl.load(x_at + at, mask=column < width // EACH - at, other=0),)
    return found


@triton.jit
def _spread(x, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """(PARTS, 16, COLUMNS) of what lanes have for their two rows, (32 PARTS, 2)."""
    x = tl.broadcast_to(x[:, :, None], [PARTS * 32, 2, COLUMNS // 4])
    # (part, g, t, row half, pair)
    x = tl.permute(tl.reshape(x, [PARTS, 8, 4, 2, COLUMNS // 4]), [0, 3, 1, 2, 4])
    return tl.reshape(x, [PARTS, 16, COLUMNS])


@triton.jit
def _own(x, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of products (PARTS, 16, 8) the columns that differ: of one line a lane's two are the same."""
    if COLUMNS == 4:
        x, _ = tl.split(tl.reshape(x, [PARTS, 16, 4, 2]))
    return x


@triton.jit
def _scaled(y, acc, sums, bits, PARTS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr,
            KIND: tl.constexpr):
    """y plus what products of codes and sums of x come to, with their scales and zeros."""
    scale, zero = scale_and_zero(bits, SCALE)
    if excess(KIND) != 0.0:
        zero += excess(KIND)
    y += _own(acc, PARTS, COLUMNS) * _spread(scale, PARTS, COLUMNS)
    return y - _own(sums, PARTS, COLUMNS) * _spread(zero * scale, PARTS, COLUMNS)


@triton.jit
def _round(y, up_y, found, up_found, values, over, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
           PIECE: tl.constexpr, KIND: tl.constexpr, SCALE: tl.constexpr, GATED: tl.constexpr):
    """y and up_y with the products of one round added."""
    QUARTERS: tl.constexpr = PIECE // 32
    ones = tl.full([PARTS, 16, 32], 1.0, KIND)
    acc = tl.zeros([PARTS, 16, 8], tl.float32)
    up_acc = tl.zeros([PARTS, 16, 8], tl.float32)
    sums = tl.zeros([PARTS, 16, 8], tl.float32)
    for quarter in tl.static_range(4):
        x = _inputs(values[quarter], PARTS, KIND, WIDE)
        sums = tl.dot(ones, x, sums, input_precision="ieee")
        half = _quarters(found[quarter // 2], PARTS)
        codes = fragments(half[quarter % 2], over, 1, PARTS, 2, KIND, WIDE)
        acc = tl.dot(codes, x, acc, input_precision="ieee")
        if GATED:
            half = _quarters(up_found[quarter // 2], PARTS)
            codes = fragments(half[quarter % 2], over, 1, PARTS, 2, KIND, WIDE)
            up_acc = tl.dot(codes, x, up_acc, input_precision="ieee")
        if (quarter + 1) % QUARTERS == 0:
            y = _scaled(y, acc, sums, found[2 + quarter // QUARTERS], PARTS, COLUMNS, SCALE,
                        KIND)
            acc = tl.zeros([PARTS, 16, 8], tl.float32)
            if GATED:
                up_y = _scaled(up_y, up_acc, sums, up_found[2 + quarter // QUARTERS], PARTS,
                               COLUMNS, SCALE, KIND)
                up_acc = tl.zeros([PARTS, 16, 8], tl.float32)
            sums = tl.zeros([PARTS, 16, 8], tl.float32)
    return y, up_y


@triton.jit(do_not_specialize=["lines", "over", "always"])
def _kernel(x_ptr, words_ptr, scales_ptr, residual_ptr, out_ptr, over, lines, outs, width,
            spans, groups, tiles, always, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
            GROUP: tl.constexpr, PIECE: tl.constexpr, EVEN: tl.constexpr, SCALE: tl.constexpr,
            RESIDUAL: tl.constexpr, GATED: tl.constexpr, OVERLAP: tl.constexpr):
    KIND: tl.constexpr = x_ptr.dtype.element_ty
    EACH: tl.constexpr = 1 if KIND == tl.float32 else 2
    tile = tl.program_id(0)
    row = tl.arange(0, 16)
    # Loads are two-dimensional, (lanes of all warps, words of a lane): of more dimensions
    # compilers do not all give lanes to the same one.
    at = tl.arange(0, PARTS * 32)
    lane, mine = at % 32, at // 32
    lower = tiles // 2
    words_at = words_ptr + tile.to(tl.int64) * (spans * 256) + lane[:, None] * 4 \
        + tl.arange(0, 4)[None, :]
    scales_at = scales_ptr + tile * (groups * 16) + (lane // 4 * 2)[:, None] \
        + tl.arange(0, 2)[None, :]
    up_words_at = words_at + lower.to(tl.int64) * (spans * 256)
    up_scales_at = scales_at + lower * (groups * 16)
    found = _words(words_at, scales_at, mine, 0, spans, groups, PIECE, GROUP, EVEN)
    up_found = found
    if GATED:
        up_found = _words(up_words_at, up_scales_at, mine, 0, spans, groups, PIECE, GROUP, EVEN)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    # Of one line every lane has a copy, and one of them is stored.
    line = tl.arange(0, COLUMNS)[None, :]
    out_at = line * outs + (tile * 16 + row)[:, None]
    inside = (tile * 16 + row < outs)[:, None] & (line < lines)
    if RESIDUAL:
        old = tl.load(residual_ptr + out_at, mask=inside, other=0.0).to(tl.float32)
    if EACH == 2:  # values of 16 bits would be taken apart and joined again in each block of code
        x_ptr = x_ptr.to(tl.pointer_type(tl.int32))
    # Lines past the last one are the last one again.
    column = (mine * (128 // EACH) + lane % 4 * (8 // EACH))[:, None] \
        + tl.arange(0, 8 // EACH)[None, :]
    x_at = x_ptr + tl.minimum(lane // 4, lines - 1)[:, None] * (width // EACH) + column
    y = tl.zeros([PARTS, 16, COLUMNS], tl.float32)
    up_y = tl.zeros([PARTS, 16, COLUMNS], tl.float32)
    values = _values(x_at, column, 0, width, EACH, EVEN)
    # Two rounds a turn, so that what was loaded need not move to other registers; one stage, so
    # that it does not come by way of shared memory.
    for first in tl.range(PARTS, spans + PARTS, 2 * PARTS, num_stages=1):
        fresh = _words(words_at, scales_at, mine, first, spans, groups, PIECE, GROUP, EVEN)
        up_fresh = fresh
        if GATED:
            up_fresh = _words(up_words_at, up_scales_at, mine, first, spans, groups, PIECE,
                              GROUP, EVEN)
        later = _values(x_at, column, first, width, EACH, EVEN)
        # Always so; a block of its own keeps the assembler from computing first, loading then.
        if first < always:
            y, up_y = _round(y, up_y, found, up_found, values, over, PARTS, COLUMNS, PIECE,
                             KIND, SCALE, GATED)
        if first + PARTS < spans:
            found = _words(words_at, scales_at, mine, first + PARTS, spans, groups, PIECE, GROUP,
                           EVEN)
            up_found = found
            if GATED:
                up_found = _words(up_words_at, up_scales_at, mine, first + PARTS, spans, groups,
                                  PIECE, GROUP, EVEN)
            values = _values(x_at, column, first + PARTS, width, EACH, EVEN)
        if first < always:
            y, up_y = _round(y, up_y, fresh, up_fresh, later, over, PARTS, COLUMNS, PIECE,
                             KIND, SCALE, GATED)
    if GATED:
        gate, up = tl.split(tl.sum(tl.join(y, up_y), axis=0))
        out = silu_times(gate, up)
    else:
        out = tl.sum(y, axis=0)
    if RESIDUAL:
        out += old
    tl.store(out_ptr + out_at, out.to(out_ptr.dtype.element_ty), mask=inside)


def int4_few_config(outs: int, spans: int, gated: bool) -> Int4FewConfig:
    """The configuration for a weight of `outs` rows (half of them, if gated); measured."""
    if gated:
        return Int4FewConfig(2, 2)
    return Int4FewConfig(8, 4 if outs > 4096 and spans <= 32 else 8)


def int4_few_triton(x: Tensor, weight: PackedInt4, residual: Tensor | None, gated: bool,
                    out_dtype: torch.dtype, config: Int4FewConfig | None = None) -> Tensor:
    """`fused_linear` for contiguous x (T, in), T at most FEW_LINES, in the order of the words.

    If gated, half the rows of the weight have to be whole tiles.
    """
    tiles, spans = weight.words.shape[:2]
    outs = weight.outs // 2 if gated else weight.outs
    c = config or int4_few_config(outs, spans, gated)
    out = x.new_empty(len(x), outs, dtype=out_dtype) if residual is None else residual
    _kernel[(triton.cdiv(outs, TILE),)](
        x, weight.words, weight.scales, out, out, over(x.dtype), len(x), outs, weight.width,
        spans, weight.scales.shape[1], tiles, 1 << 30, PARTS=c.parts,
        COLUMNS=4 if len(x) == 1 else 8, GROUP=weight.group, PIECE=weight.piece,
        EVEN=weight.width % (2 * c.parts * SPAN) == 0, SCALE=KINDS[weight.kind],
        RESIDUAL=residual is not None, GATED=gated, num_warps=c.warps, **overlap(x))
    return out
