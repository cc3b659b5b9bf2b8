"""Activations in the layout of tensor cores' fragments, for `int4_gemm_triton`, with their norm.

Of eight rows and 16 columns lane 4 n + t of a warp gives `mma.m16n8k16` row n, columns 2 t, 2 t + 1
and 8 more of both (PTX ISA, "Matrix fragments for mma.m16n8k16").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.int4_pack import SPAN, PackedInt4
from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs


class Inputs(NamedTuple):
    """values: as x, (spans, 2, rows / 8, 2, 32, 8): halves of a span, tiles of 8 rows, halves of
    those, lanes, and of a lane two steps of 4 values.  sums: float32 (pieces, rows), of the
    columns of each piece.  Rows past those of x are not written.
    """

    values: Tensor
    sums: Tensor
    piece: int


@triton.jit
def _kernel(x_ptr, order_ptr, norm_ptr, values_ptr, sums_ptr, width, eps, tiles,
            WIDTH: tl.constexpr, PIECE: tl.constexpr, ORDERED: tl.constexpr, NORM: tl.constexpr,
            OVERLAP: tl.constexpr):
    line = tl.program_id(0)
    first = tl.program_id(1) * WIDTH
    column = first + tl.arange(0, WIDTH)
    inside = column < width
    at = column
    if ORDERED:
        at = tl.load(order_ptr + column, mask=inside, other=0)
    if NORM:
        gain = tl.load(norm_ptr + at, mask=inside, other=0.0).to(tl.float32)
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    x = tl.load(x_ptr + line.to(tl.int64) * width + at, mask=inside, other=0.0)
    if NORM:
        wide = x.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
        x = (wide * scale * gain).to(x.dtype)
    # column: span, half, quarter, t, step, column half, pair
    place = column // 64 * tiles * 512 + line // 8 * 512 + column // 32 % 2 * 256 \
        + (line % 8 * 4 + column // 8 % 4) * 8 + column % 8
    end = (width + 127) // 128 * 128  # of the last span
    tl.store(values_ptr + place, x, mask=column < end)
    sums = tl.sum(tl.reshape(x.to(tl.float32), [WIDTH // PIECE, PIECE]), axis=1)
    piece = first // PIECE + tl.arange(0, WIDTH // PIECE)
    tl.store(sums_ptr + piece * tiles * 8 + line, sums, mask=piece * PIECE < end)


def int4_inputs_triton(x: Tensor, weight: PackedInt4, norm: Tensor | None, eps: float) -> Inputs:
    """Contiguous x (T, in) for a product with `weight`, normed if `norm` is given."""
    tiles = triton.next_power_of_2(triton.cdiv(len(x), 8))
    spans = weight.words.shape[1]
    piece = weight.piece
    values = x.new_empty(spans, 2, tiles, 2, 32, 8)
    sums = x.new_empty(spans * (SPAN // piece), tiles * 8, dtype=torch.float32)
    # A norm needs the row whole.
    columns = 1024 if norm is None else triton.next_power_of_2(spans * SPAN)
    _kernel[(len(x), triton.cdiv(spans * SPAN, columns))](
        x, weight.words if weight.order is None else weight.order, x if norm is None else norm,
        values, sums, weight.width, eps, tiles, WIDTH=columns, PIECE=piece,
        ORDERED=weight.order is not None, NORM=norm is not None,
        num_warps=min(16, max(2, columns // 512)), **overlap(x))
    return Inputs(values, sums, piece)
