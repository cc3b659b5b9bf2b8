"""Activations for a product with a 4-bit weight whose columns were moved: in the order of its
words, with their norm.

With few rows a program has a part of a row's columns, and sums the squares of all of them itself:
to read a row again takes less time than to wait for another program, and fetching each value from
a place of its own would keep one program busy for long.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs

_COLUMNS = 512  # of a program
_MOST_ROWS = 16  # for more rows than these there are programs enough without taking rows apart


@triton.jit
def _kernel(x_ptr, order_ptr, norm_ptr, out_ptr, width, eps, COLUMNS: tl.constexpr,
            BLOCK: tl.constexpr, NORM: tl.constexpr, OVERLAP: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    at = tl.load(order_ptr + column, mask=inside, other=0)
    let_next_start(OVERLAP)
    if NORM:
        gain = tl.load(norm_ptr + at, mask=inside, other=0.0).to(tl.float32)
    wait_for_inputs(OVERLAP)
    if NORM:
        every = tl.arange(0, BLOCK)
        whole = tl.load(x_ptr + row + every, mask=every < width, other=0.0)
        x = tl.gather(whole, at, 0)
        wide = whole.to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
        x = (x.to(tl.float32) * scale * gain).to(x.dtype)
    else:
        x = tl.load(x_ptr + row + at, mask=inside, other=0.0)
    tl.store(out_ptr + row + column, x, mask=inside)


def int4_order_triton(x: Tensor, order: Tensor, norm: Tensor | None, eps: float) -> Tensor:
    """rms_norm(x)[:, order], or x[:, order] without a norm, for contiguous x (T, in), in its type.

    order: int32 (in,).  It and `norm` are weights: no kernel just before this one writes them.
    """
    rows, width = x.shape
    out = torch.empty_like(x)
    if rows:
        block = triton.next_power_of_2(width)
        columns = _COLUMNS if norm is None or rows <= _MOST_ROWS else block
        work = columns if norm is None else block
        _kernel[(rows, triton.cdiv(width, columns))](
            x, order, x if norm is None else norm, out, width, eps, COLUMNS=columns, BLOCK=block,
            NORM=norm is not None, num_warps=min(16, max(4, work // 512)), **overlap(x))
    return out
