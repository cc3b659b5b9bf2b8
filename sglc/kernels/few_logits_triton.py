"""`few_logits` as a Triton kernel: gathers rows of the head and multiplies in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _kernel(hidden_ptr, head_ptr, ids_ptr, out_ptr, width, count, FEW: tl.constexpr,
            COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    few = tl.program_id(1) * FEW + tl.arange(0, FEW)
    ids = tl.load(ids_ptr + row * count + few, mask=few < count, other=-1).to(tl.int64)
    wanted = ids >= 0
    at = tl.arange(0, COLUMNS)
    total = tl.zeros([FEW, COLUMNS], tl.float32)
    # Padding comes last, and costs nothing.
    for column in range(0, tl.where(tl.max(ids, axis=0) >= 0, width, 0), COLUMNS):
        here = column + at
        inside = here < width
        w = tl.load(head_ptr + ids[:, None] * width + here[None, :],
                    mask=wanted[:, None] & inside[None, :], other=0.0)
        x = tl.load(hidden_ptr + row * width + here, mask=inside, other=0.0).to(tl.float32)
        total += w.to(tl.float32) * x[None, :]
    logits = tl.where(wanted, tl.sum(total, axis=1), -float("inf"))
    tl.store(out_ptr + row * count + few, logits, mask=few < count)


def few_logits_triton(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    """As `few_logits_torch`, of contiguous tensors."""
    rows, count = ids.shape
    out = hidden.new_empty(rows, count, dtype=torch.float32)
    if rows and count:
        few = 4
        _kernel[(rows, triton.cdiv(count, few))](
            hidden, head, ids, out, hidden.shape[1], count, FEW=few,
            COLUMNS=min(1024, triton.next_power_of_2(hidden.shape[1])), num_warps=4)
    return out
