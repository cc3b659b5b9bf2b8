"""The layout of 4-bit weights that the Triton kernels read.

Eight codes are a word.  The codes of 32 columns, a block, are 4 words that lie side by side: word
i has the columns 4 j + i, code j in bits 4 j to 4 j + 3.  So one code of each word of a block
meets four x that lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4 import Int4Matrix

BLOCK = 32  # columns


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """words: int32 (out, in / 8).  scales: floating, zeros: uint8, both (out, groups); a group is
    `in / groups` columns, in the order of the words.  order: int32 (in,), which entry of x each
    column is for, or None.  arrived: counters of programs, as in `PackedWeight`.
    """

    words: Tensor
    scales: Tensor
    zeros: Tensor
    order: Tensor | None
    arrived: Tensor

    @property
    def outs(self) -> int:
        return self.words.shape[0]

    @property
    def width(self) -> int:
        return self.words.shape[1] * 8

    @property
    def blocks_per_group(self) -> int:
        return self.width // self.scales.shape[1] // BLOCK


def pack_words(matrix: Int4Matrix, smallest_tile: int) -> PackedInt4 | None:
    """The matrix in this layout; None for groups that are not of one size in whole blocks."""
    matrix, order = matrix.ordered()
    (outs, width), groups = matrix.shape, matrix.scales.shape[1]
    if matrix.group_of is not None or width % (groups * BLOCK):
        return None
    codes = matrix.codes.view(outs, -1, 8, 4)
    words = torch.zeros(outs, width // BLOCK, 4, dtype=torch.int32, device=codes.device)
    for j in range(8):
        words |= codes[:, :, j].int() << 4 * j
    arrived = torch.zeros(-(-outs // smallest_tile), dtype=torch.int32, device=codes.device)
    return PackedInt4(words.view(outs, -1), matrix.scales.contiguous(), matrix.zeros.contiguous(),
                      None if order is None else order.int(), arrived)


@triton.jit
def code(words, J: tl.constexpr):
    """Code J of each word plus 256 (J even) or 16 (J odd), as float32.

    A code becomes the upper bits of a float's fraction: no conversion is needed, and what is
    added drops out of sums later.
    """
    UP: tl.constexpr = 15 - 8 * (J // 2)
    if UP > 0:
        moved = words << UP
    else:
        moved = words >> -UP
    if J % 2 == 1:
        bits = (moved & 0x00780000) | 0x41800000
    else:
        bits = (moved & 0x00078000) | 0x43800000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _dense_kernel(words_ptr, scales_ptr, zeros_ptr, out_ptr, width, groups, per_group,
                  COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    word = tl.load(words_ptr + row * (width // 8) + column // 32 * 4 + column % 4, mask=inside,
                   other=0)
    value = ((word >> (column % 32 // 4 * 4)) & 15).to(tl.float32)
    group = row * groups + column // per_group
    scale = tl.load(scales_ptr + group, mask=inside, other=0.0).to(tl.float32)
    zero = tl.load(zeros_ptr + group, mask=inside, other=0).to(tl.float32)
    tl.store(out_ptr + row * width + column,
             ((value - zero) * scale).to(out_ptr.dtype.element_ty), mask=inside)


def dense_triton(weight: PackedInt4, dtype: torch.dtype) -> Tensor:
    """The matrix (out, in) in `dtype`, its columns in the order of the words."""
    outs, width, groups = weight.outs, weight.width, weight.scales.shape[1]
    out = torch.empty(outs, width, dtype=dtype, device=weight.words.device)
    columns = min(1024, triton.next_power_of_2(width))
    _dense_kernel[(outs, triton.cdiv(width, columns))](
        weight.words, weight.scales, weight.zeros, out, width, groups, width // groups,
        COLUMNS=columns, num_warps=4)
    return out
