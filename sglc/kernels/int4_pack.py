"""The layout of 4-bit weights that the Triton kernels read: that of tensor cores' fragments.

A tile is 16 rows, a span 128 columns, a step 16.  A word has the eight codes that one lane
of a warp gives to `mma.m16n8k16` (PTX ISA, "Matrix fragments for mma.m16n8k16"): of lane 4 g + t,
rows g and g + 8, and of both four columns.  So a word becomes four registers by shifts and masks,
and no code moves between lanes.  Which columns a product calls its k-th is free: of 32 columns
lane t has 8 t to 8 t + 7, four in each of two steps, so that it loads them from x at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from sglc.kernels.int4 import Int4Matrix

TILE, SPAN = 16, 128
ZERO = tl.constexpr(128)  # is added to zeros, as bfloat16 has to be to codes
_SMALLEST_GROUP = 32

# The order of two steps' columns in the operands of `tl.dot`, as compilers lay them out in lanes:
# of lane t and one step 2 t, 2 t + 1 and 8 more of both, or 4 t, 4 t + 1 and 16 more of both (then
# 2 more of all for the other step).  Either gives the same sums.
WIDE = tl.constexpr(tuple(int(n) for n in triton.__version__.split(".")[:2]) < (3, 8))


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """A matrix (outs, width).

    words: int32 (tiles, spans, 2, 32, 4): halves of a span, lanes, steps.  scales: int32
    (tiles, groups, 16), the bits of a scale of type `kind` above those of its zero + 128 in
    bfloat16, those of rows g and g + 8 side by side.  Past the matrix scales are 0.  group: its
    columns.  order: int32 (width,), which entry of x each column is for, or None.
    """

    words: Tensor
    scales: Tensor
    kind: torch.dtype
    order: Tensor | None
    outs: int
    width: int
    group: int

    @property
    def piece(self) -> int:
        """Columns whose sums a product may scale at once: a part of a group and of a span."""
        return next(size for size in (128, 64, 32) if self.group % size == 0)


def pack_words(matrix: Int4Matrix) -> PackedInt4 | None:
    """The matrix in this layout; None for groups that are not all of one size, or not of 32
    columns or a multiple, and for scales that need more than 16 bits."""
    matrix, order = matrix.ordered()
    (outs, width), groups = matrix.shape, matrix.scales.shape[1]
    scales = _in_16_bits(matrix.scales)
    if scales is None or matrix.group_of is not None or width % (groups * _SMALLEST_GROUP):
        return None
    tiles, spans = -(-outs // TILE), -(-width // SPAN)
    more = TILE * tiles - outs
    codes = pad(matrix.codes, (0, SPAN * spans - width, 0, more))
    # (tile, row half, g, span, half, two steps, t, step, column half, pair)
    parts = codes.view(tiles, 2, 8, spans, 2, 2, 4, 2, 2, 2)
    words = torch.zeros(tiles, spans, 2, 8, 4, 2, 2, dtype=torch.int32, device=codes.device)
    for low in range(2):
        for right in range(2):
            for pair in range(2):
                # (tile, g, span, half, steps, t, step) -> (tile, span, half, g, t, steps, step)
                piece = parts[:, low, ..., right, pair].permute(0, 2, 3, 1, 5, 4, 6)
                words |= piece.int() << 4 * (low + 2 * right + 4 * pair)
    zeros = (matrix.zeros.int() + 128).bfloat16().view(torch.int16).int() & 0xFFFF
    bits = pad((scales.view(torch.int16).int() << 16 | zeros).t(), (0, more))
    bits = bits.view(groups, tiles, 2, 8).permute(1, 0, 3, 2).reshape(tiles, groups, TILE)
    return PackedInt4(words.view(tiles, spans, 2, 32, 4), bits, scales.dtype,
                      None if order is None else order.int(), outs, width, width // groups)


def _in_16_bits(scales: Tensor) -> Tensor | None:
    """The same numbers in a type of 16 bits."""
    for kind in (torch.float16, torch.bfloat16):
        few = scales.to(kind)
        if torch.equal(few.to(scales.dtype), scales):
            return few
    return None


@triton.jit
def scale_and_zero(bits, KIND: tl.constexpr):
    """Of `PackedInt4.scales`, in float32: scales, and zeros + ZERO."""
    if KIND == tl.bfloat16:
        scale = (bits & -65536).to(tl.float32, bitcast=True)
    else:
        scale = (bits >> 16).to(tl.int16).to(KIND, bitcast=True).to(tl.float32)
    return scale, (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def scale_place(tile, row, groups):
    """Where `PackedInt4.scales` has that of the first group, of a row of a tile."""
    return tile * (groups * 16) + row % 8 * 2 + row // 8 % 2


KINDS = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def _pair(words, over, PLACE: tl.constexpr, KIND: tl.constexpr):
    """Codes PLACE and PLACE + 4 of words, (..., 2), plus `excess` and ZERO."""
    codes = (words >> 4 * PLACE) & 0x000F000F
    if KIND == tl.float32:
        return tl.join((codes & 15).to(KIND), (codes >> 16).to(KIND))
    else:
        # A code becomes the end of the fraction of 128 (or 1024): no conversion is needed.
        codes = codes | over
        return tl.join((codes & 0xFFFF).to(tl.int16).to(KIND, bitcast=True),
                       (codes >> 16).to(tl.int16).to(KIND, bitcast=True))


def over(kind: torch.dtype) -> int:
    """What `fragments` is to be given; an argument of the kernel, so that it stays in a register
    and a mask and it are one instruction."""
    return {torch.bfloat16: 0x43004300, torch.float16: 0x64006400}.get(kind, 0)


@triton.constexpr_function
def excess(kind):
    """What `fragments` adds to codes, less ZERO."""
    return 0.0 if kind == tl.bfloat16 else 896.0 if kind == tl.float16 else -128.0


@triton.jit
def _codes(words, over, KIND: tl.constexpr):
    """Codes plus `excess` and ZERO of words, (..., pair, column half, row half)."""
    upper = tl.join(_pair(words, over, 0, KIND), _pair(words, over, 2, KIND))
    lower = tl.join(_pair(words, over, 1, KIND), _pair(words, over, 3, KIND))
    return tl.join(upper, lower)


@triton.jit
def fragments(words, over, TILES: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr,
              KIND: tl.constexpr, ORDER: tl.constexpr):
    """Codes plus `excess` and ZERO as KIND, (WARPS, 16 TILES, 16 STEPS), of words (TILES, WARPS,
    32, STEPS).

    ORDER: True for columns as they are for `WIDE`.  Neither lanes nor warps exchange anything.
    """
    # (tile, warp, g, t, step, pair, column half, row half)
    codes = tl.reshape(_codes(words, over, KIND), [TILES, WARPS, 8, 4, STEPS, 2, 2, 2])
    if ORDER:
        codes = tl.permute(codes, [1, 0, 7, 2, 6, 3, 4, 5])
    else:
        codes = tl.permute(codes, [1, 0, 7, 2, 4, 6, 3, 5])
    return tl.reshape(codes, [WARPS, 16 * TILES, 16 * STEPS])


@triton.jit
def _dense_kernel(words_ptr, scales_ptr, out_ptr, outs, width, spans, groups,
                  GROUP: tl.constexpr, SCALE: tl.constexpr):
    tile, span = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, 32)[:, None] * 4 + tl.arange(0, 4)[None, :]
    start = words_ptr + (tile * spans + span) * 256
    row = tile * 16 + tl.arange(0, 16)[:, None]
    for half in tl.static_range(2):
        words = tl.load(start + half * 128 + at)
        codes = _codes(tl.reshape(words, [32, 4]), 0, tl.float32)
        # (g, t, two steps, step, pair, column half, row half)
        codes = tl.permute(tl.reshape(codes, [8, 4, 2, 2, 2, 2, 2]), [6, 0, 2, 1, 3, 5, 4])
        column = span * 128 + half * 64 + tl.arange(0, 64)[None, :]
        inside = (row < outs) & (column < width)
        group = tl.minimum(column, width - 1) // GROUP * 16
        scale, zero = scale_and_zero(
            tl.load(scales_ptr + (scale_place(tile, row - tile * 16, groups) + group)), SCALE)
        values = (tl.reshape(codes, [16, 64]) - (zero - ZERO)) * scale
        tl.store(out_ptr + row * width + column, values.to(out_ptr.dtype.element_ty), mask=inside)


def dense_triton(weight: PackedInt4, dtype: torch.dtype) -> Tensor:
    """The matrix (out, in) in `dtype`, its columns in the order of the words."""
    tiles, spans = weight.words.shape[:2]
    out = torch.empty(weight.outs, weight.width, dtype=dtype, device=weight.words.device)
    _dense_kernel[(tiles, spans)](
        weight.words, weight.scales, out, weight.outs, weight.width, spans,
        weight.scales.shape[1], GROUP=weight.group, SCALE=KINDS[weight.kind], num_warps=2)
    return out
