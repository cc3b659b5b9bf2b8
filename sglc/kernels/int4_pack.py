"""The layout of 4-bit weights that the Triton kernels read.

Eight codes are a word.  Columns come in spans of 32, 64 or 128, all of one group.  A span of S
columns is S / 8 words that lie side by side: word i has the columns j S / 8 + i, j from 0 to 7.
So one code of each word of a span meets S / 8 x that lie side by side, and 16 bytes, a piece, are
of one group.  Code j is in the bits 4 j + 15 to 4 j + 18, modulo 32: two are where floats want
them (`code`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4 import Int4Matrix

PIECE = 32  # columns of 16 bytes
LONGEST_SPAN = 128


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """words: int32 (out, in / 8).  scales: floating, zeros: uint8, both (groups, out): products
    take rows side by side.  span: columns; divides those of a group.  order: int32 (in,), which
    entry of x each column is for, or None.  arrived: counters of programs, as in `PackedWeight`.
    """

    words: Tensor
    scales: Tensor
    zeros: Tensor
    span: int
    order: Tensor | None
    arrived: Tensor

    @property
    def outs(self) -> int:
        return self.words.shape[0]

    @property
    def width(self) -> int:
        return self.words.shape[1] * 8

    @property
    def group_size(self) -> int:
        return self.width // self.scales.shape[0]


def pack_words(matrix: Int4Matrix, smallest_tile: int) -> PackedInt4 | None:
    """The matrix in this layout; None for groups that are not of one size in whole pieces."""
    matrix, order = matrix.ordered()
    (outs, width), groups = matrix.shape, matrix.scales.shape[1]
    if matrix.group_of is not None or width % (groups * PIECE):
        return None
    span = PIECE
    while span < LONGEST_SPAN and width // groups % (2 * span) == 0:
        span *= 2
    codes = matrix.codes.view(outs, -1, 8, span // 8)
    words = torch.zeros(outs, width // span, span // 8, dtype=torch.int32, device=codes.device)
    for j in range(8):
        moved = codes[:, :, j].int() << (4 * j + 15) % 32
        words |= moved
        if j == 4:  # its upper bits are the word's lowest
            words |= codes[:, :, j].int() >> 1
    arrived = torch.zeros(-(-outs // smallest_tile), dtype=torch.int32, device=codes.device)
    return PackedInt4(words.view(outs, -1), matrix.scales.t().contiguous(),
                      matrix.zeros.t().contiguous(), span,
                      None if order is None else order.int(), arrived)


@triton.jit
def code(words, J: tl.constexpr):
    """Code J of each word plus 256 (J even) or 16 (J odd), as float32.

    A code becomes the upper bits of a float's fraction: no conversion is needed, and what is
    added drops out of sums later.
    """
    bits = words.to(tl.uint32, bitcast=True)
    if J // 2 == 1:
        bits = bits >> 8
    elif J // 2 == 2:
        bits = (bits << 16) | (bits >> 16)
    elif J // 2 == 3:
        bits = bits << 8
    if J % 2 == 1:
        bits = (bits & 0x00780000) | 0x41800000
    else:
        bits = (bits & 0x00078000) | 0x43800000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _dense_kernel(words_ptr, scales_ptr, zeros_ptr, out_ptr, width, outs, group_size,
                  SPAN: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    WORDS: tl.constexpr = SPAN // 8
    word = tl.load(words_ptr + row * (width // 8) + column // SPAN * WORDS + column % WORDS,
                   mask=inside, other=0).to(tl.uint32, bitcast=True)
    word = (word >> 15) | (word << 17)
    j = (column % SPAN // WORDS).to(tl.uint32)
    value = ((word >> (j * 4)) & 15).to(tl.float32)
    group = column // group_size * outs + row
    scale = tl.load(scales_ptr + group, mask=inside, other=0.0).to(tl.float32)
    zero = tl.load(zeros_ptr + group, mask=inside, other=0).to(tl.float32)
    tl.store(out_ptr + row * width + column,
             ((value - zero) * scale).to(out_ptr.dtype.element_ty), mask=inside)


def dense_triton(weight: PackedInt4, dtype: torch.dtype) -> Tensor:
    """The matrix (out, in) in `dtype`, its columns in the order of the words."""
    outs, width = weight.outs, weight.width
    out = torch.empty(outs, width, dtype=dtype, device=weight.words.device)
    columns = min(1024, triton.next_power_of_2(width))
    _dense_kernel[(outs, triton.cdiv(width, columns))](
        weight.words, weight.scales, weight.zeros, out, width, outs, weight.group_size,
        SPAN=weight.span, COLUMNS=columns, num_warps=4)
    return out
