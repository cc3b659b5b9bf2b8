"""`logprobs` as Triton kernels: sums of parts of a row, then one program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 528


@triton.jit
def _sum_kernel(logits_ptr, top_ptr, sum_ptr, count, per_part, BLOCK: tl.constexpr):
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    top = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    first = part * per_part
    for start in range(first, tl.minimum(first + per_part, count), BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * count + at, mask=at < count, other=-float("inf"))
        x = x.to(tl.float32)
        new = tl.maximum(top, x)
        safe = tl.where(new == -float("inf"), 0.0, new)
        total = total * tl.exp(top - safe) + tl.exp(x - safe)
        top = new
    best = tl.max(top, axis=0)
    safe = tl.where(best == -float("inf"), 0.0, best)
    out = row * tl.num_programs(1) + part
    tl.store(top_ptr + out, best)
    tl.store(sum_ptr + out, tl.sum(total * tl.exp(top - safe), axis=0))


@triton.jit
def _pick_kernel(logits_ptr, top_ptr, sum_ptr, tokens_ptr, own_ptr, best_ptr, best_id_ptr, count,
                 parts, PARTS: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    tops = tl.load(top_ptr + row * parts + part, mask=part < parts, other=-float("inf"))
    sums = tl.load(sum_ptr + row * parts + part, mask=part < parts, other=0.0)
    best = tl.max(tops, axis=0)
    norm = best + tl.log(tl.sum(sums * tl.exp(tops - best), axis=0))
    token = tl.load(tokens_ptr + row)
    own = tl.load(logits_ptr + row * count + tl.maximum(token, 0)).to(tl.float32) - norm
    tl.store(own_ptr + row, tl.where(token < 0, -float("inf"), own))
    last = tl.full([], float("inf"), tl.float32)
    last_id = tl.full([], -1, tl.int32)
    for i in range(TOP):
        value = tl.full([BLOCK], -float("inf"), tl.float32)
        place = tl.full([BLOCK], 0x7FFFFFFF, tl.int32)
        for start in range(0, count, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(logits_ptr + row * count + at, mask=at < count,
                        other=-float("inf")).to(tl.float32)
            after = (at < count) & ((x < last) | ((x == last) & (at > last_id)))
            better = after & ((x > value) | (place == 0x7FFFFFFF))
            value = tl.where(better, x, value)
            place = tl.where(better, at, place)
        last = tl.max(value, axis=0)
        last_id = tl.min(tl.where(value == last, place, 0x7FFFFFFF), axis=0)
        tl.store(best_ptr + row * TOP + i, last - norm)
        tl.store(best_id_ptr + row * TOP + i, last_id.to(tl.int64))


def logprobs_triton(logits: Tensor, tokens: Tensor, top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """As `logprobs_torch`, of contiguous tensors; `top` is at most the number of columns."""
    return logprobs_in_parts(logits, tokens, top, triton.cdiv(_PROGRAMS, max(1, len(logits))))


def logprobs_in_parts(logits: Tensor, tokens: Tensor, top: int, parts: int
                      ) -> tuple[Tensor, Tensor, Tensor]:
    """The same with about so many programs a row."""
    rows, count = logits.shape
    top = min(top, count)
    like = {"dtype": torch.float32, "device": logits.device}
    own, best = torch.empty(rows, **like), torch.empty(rows, top, **like)
    best_id = torch.empty(rows, top, dtype=torch.int64, device=logits.device)
    if not rows:
        return own, best, best_id
    block = min(2048, triton.next_power_of_2(count))
    parts = max(1, min(triton.cdiv(count, block), parts))
    per_part = triton.cdiv(triton.cdiv(count, parts), block) * block
    parts = triton.cdiv(count, per_part)
    tops, sums = torch.empty(rows, parts, **like), torch.empty(rows, parts, **like)
    _sum_kernel[(rows, parts)](logits, tops, sums, count, per_part, BLOCK=block, num_warps=4)
    wide = min(8192, triton.next_power_of_2(count)) if top else 16
    _pick_kernel[(rows,)](logits, tops, sums, tokens, own, best, best_id, count, parts,
                          PARTS=triton.next_power_of_2(parts), TOP=top, BLOCK=wide,
                          num_warps=max(1, min(16, wide // 256)))
    return own, best, best_id
