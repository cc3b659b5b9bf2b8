"""The layout of 4-bit weights that the Triton kernels read: that of tensor cores' fragments.

A tile is 16 rows, a span 128 columns, a step 16.  A word has the eight codes that one lane
of a warp gives to `mma.m16n8k16` (PTX ISA, "Matrix fragments for mma.m16n8k16"): of lane 4 g + t,
rows g and g + 8, columns 2 t, 2 t + 1 and 8 more of both.  So a word becomes four registers by
shifts and masks, and no code moves between lanes.
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
_SMALLEST_GROUP = 32

# The order of a step's columns in the operands of `tl.dot`, as compilers lay them out in lanes: of
# lane t columns 4 t to 4 t + 3, or 2 t and 2 t + 1 of both halves.  Either gives the same sums.
WIDE = tl.constexpr(tuple(int(n) for n in triton.__version__.split(".")[:2]) < (3, 8))


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """A matrix (outs, width).

    words: int32 (tiles, spans, 2, 32, 4): halves of a span, lanes, steps.  scales: int32
    (groups, 16 * tiles), the bits of a scale of type `kind` above those of its zero.  Past the
    matrix both are 0.  group: its columns.  order: int32 (width,), which entry of x each column
    is for, or None.
    """

    words: Tensor
    scales: Tensor
    kind: torch.dtype
    order: Tensor | None
    outs: int
    width: int
    group: int


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
    # (tile, row half, g, span, half, step, column half, t, pair)
    parts = codes.view(tiles, 2, 8, spans, 2, 4, 2, 4, 2)
    words = torch.zeros(tiles, spans, 2, 8, 4, 4, dtype=torch.int32, device=codes.device)
    for low in range(2):
        for right in range(2):
            for pair in range(2):
                # (tile, g, span, half, step, t) -> (tile, span, half, g, t, step)
                piece = parts[:, low, :, :, :, :, right, :, pair].permute(0, 2, 3, 1, 5, 4)
                words |= piece.int() << 4 * (low + 2 * right + 4 * pair)
    bits = scales.view(torch.int16).int() << 16 | matrix.zeros.int()
    return PackedInt4(words.view(tiles, spans, 2, 32, 4), pad(bits.t(), (0, more)).contiguous(),
                      scales.dtype, None if order is None else order.int(), outs, width,
                      width // groups)


def _in_16_bits(scales: Tensor) -> Tensor | None:
    """The same numbers in a type of 16 bits."""
    for kind in (torch.float16, torch.bfloat16):
        few = scales.to(kind)
        if torch.equal(few.to(scales.dtype), scales):
            return few
    return None


@triton.jit
def scale_and_zero(bits, KIND: tl.constexpr):
    """Of `PackedInt4.scales`, in float32."""
    scale = (bits >> 16).to(tl.int16).to(KIND, bitcast=True).to(tl.float32)
    return scale, (bits & 0xFFFF).to(tl.float32)


KINDS = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def _pair(words, over, PLACE: tl.constexpr, KIND: tl.constexpr):
    """Codes PLACE and PLACE + 4 of words, (..., 2), plus `excess`."""
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
    """What `fragments` adds to codes."""
    return 128.0 if kind == tl.bfloat16 else 1024.0 if kind == tl.float16 else 0.0


@triton.jit
def fragments(words, over, TILES: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr,
              KIND: tl.constexpr, ORDER: tl.constexpr):
    """Codes plus `excess` as KIND, (WARPS, 16 TILES, 16 STEPS), of words (TILES, WARPS, 32, STEPS).

    ORDER: True for columns as they are for `WIDE`.  Neither lanes nor warps exchange anything.
    """
    upper = tl.join(_pair(words, over, 0, KIND), _pair(words, over, 2, KIND))
    lower = tl.join(_pair(words, over, 1, KIND), _pair(words, over, 3, KIND))
    # (tile, warp, g, t, step, pair, column half, row half)
    codes = tl.reshape(tl.join(upper, lower), [TILES, WARPS, 8, 4, STEPS, 2, 2, 2])
    if ORDER:
        codes = tl.permute(codes, [1, 0, 7, 2, 4, 3, 6, 5])
    else:
        codes = tl.permute(codes, [1, 0, 7, 2, 4, 6, 3, 5])
    return tl.reshape(codes, [WARPS, 16 * TILES, 16 * STEPS])


@triton.jit
def _dense_kernel(words_ptr, scales_ptr, out_ptr, outs, width, spans, stride,
                  GROUP: tl.constexpr, SCALE: tl.constexpr):
    tile, span = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, 32)[:, None] * 4 + tl.arange(0, 4)[None, :]
    start = words_ptr + (tile * spans + span) * 256
    row = tile * 16 + tl.arange(0, 16)[:, None]
    for half in tl.static_range(2):
        words = tl.load(start + half * 128 + at)
        codes = fragments(tl.reshape(words, [1, 1, 32, 4]), 0, 1, 1, 4, tl.float32,
                          False)
        column = span * 128 + half * 64 + tl.arange(0, 64)[None, :]
        inside = (row < outs) & (column < width)
        group = tl.minimum(column, width - 1) // GROUP * stride + row
        scale, zero = scale_and_zero(tl.load(scales_ptr + group), SCALE)
        values = (tl.reshape(codes, [16, 64]) - zero) * scale
        tl.store(out_ptr + row * width + column, values.to(out_ptr.dtype.element_ty), mask=inside)


def dense_triton(weight: PackedInt4, dtype: torch.dtype) -> Tensor:
    """The matrix (out, in) in `dtype`, its columns in the order of the words."""
    tiles, spans = weight.words.shape[:2]
    out = torch.empty(weight.outs, weight.width, dtype=dtype, device=weight.words.device)
    _dense_kernel[(tiles, spans)](
        weight.words, weight.scales, out, weight.outs, weight.width, spans,
        weight.scales.shape[1], GROUP=weight.group, SCALE=KINDS[weight.kind], num_warps=2)
    return out
