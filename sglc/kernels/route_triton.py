"""Which experts compute which tokens, as Triton kernels: the best of each token, and the pairs of
token and expert in an order in which an expert's are neighbours.

Counts stay on the device.  Places in the order come from counts of the blocks before, so nothing
depends on which program is first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs

_MOST_TOKENS = 32  # a program


class Routing(NamedTuple):
    """weights: float32 (T, K).  order: int32 (T * K,), pairs (token * K + which of its experts)
    sorted by expert.  starts: int32 (E + 1,), where each expert's begin in it."""

    weights: Tensor
    order: Tensor
    starts: Tensor


@triton.jit
def _best(scores_ptr, token, tokens, stride, EXPERTS: tl.constexpr, BLOCK: tl.constexpr,
          BLOCK_E: tl.constexpr):
    """The softmax of some tokens' scores; -1 where there is no expert."""
    e = tl.arange(0, BLOCK_E)
    inside = (token < tokens)[:, None] & (e < EXPERTS)[None, :]
    s = tl.load(scores_ptr + token.to(tl.int64)[:, None] * stride + e[None, :], mask=inside,
                other=0.0)
    s = tl.where((e < EXPERTS)[None, :], s, -float("inf"))
    p = tl.exp(s - tl.max(s, 1)[:, None])
    p = p / tl.sum(p, 1)[:, None]
    return tl.where((e < EXPERTS)[None, :], p, -1.0)


@triton.jit
def _choose_kernel(scores_ptr, weights_ptr, chosen_ptr, counts_ptr, order_ptr, starts_ptr, tokens,
                   stride, EXPERTS: tl.constexpr, USED: tl.constexpr, NORMALISED: tl.constexpr,
                   BLOCK: tl.constexpr, BLOCK_E: tl.constexpr, ONE: tl.constexpr,
                   OVERLAP: tl.constexpr):
    """Grid (blocks,): weights and experts of a block's tokens, and how many each expert has.

    ONE: there is one block, whose pairs are put in order as well.
    """
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    e = tl.arange(0, BLOCK_E)
    there = token < tokens
    p = _best(scores_ptr, token, tokens, stride, EXPERTS, BLOCK, BLOCK_E)
    # Tokens whose scores are no numbers choose as well: every pair has to have a place.
    ranked = tl.where(p == p, p, 0.0)
    left = ranked
    total = tl.zeros([BLOCK], tl.float32)
    used = tl.zeros([BLOCK, BLOCK_E], tl.int32)
    for k in tl.static_range(USED):
        best = tl.argmax(left, 1)
        mine = e[None, :] == best[:, None]
        total += tl.max(left, 1)
        used += (mine & there[:, None]).to(tl.int32)
        left = tl.where(mine, -2.0, left)
        tl.store(chosen_ptr + token * USED + k, best, mask=there)
    count = tl.sum(used, 0)
    if ONE:
        start = tl.cumsum(count, 0) - count
        tl.store(starts_ptr + e, start, mask=e < EXPERTS)
        tl.store(starts_ptr + EXPERTS, tokens * USED)
        # Tokens of an expert in their order: each uses an expert once.
        place = start[None, :] + tl.cumsum(used, 0) - used
    else:
        tl.store(counts_ptr + tl.program_id(0) * EXPERTS + e, count, mask=e < EXPERTS)
    left = ranked
    for k in tl.static_range(USED):
        best = tl.argmax(left, 1)
        mine = e[None, :] == best[:, None]
        weight = tl.sum(tl.where(mine, p, 0.0), 1)
        if NORMALISED:
            weight = weight / total
        tl.store(weights_ptr + token * USED + k, weight, mask=there)
        if ONE:
            at = tl.sum(tl.where(mine, place, 0), 1)
            tl.store(order_ptr + at, token * USED + k, mask=there)
        left = tl.where(mine, -2.0, left)


@triton.jit
def _order_kernel(chosen_ptr, counts_ptr, order_ptr, starts_ptr, tokens, blocks,
                  EXPERTS: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr,
                  BLOCK_E: tl.constexpr, STEP: tl.constexpr, OVERLAP: tl.constexpr):
    """Grid (blocks,): a block's pairs to their places; the first program leaves the starts."""
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    block = tl.program_id(0)
    e = tl.arange(0, BLOCK_E)
    before = tl.zeros([BLOCK_E], tl.int32)
    count = tl.zeros([BLOCK_E], tl.int32)
    for first in range(0, blocks, STEP):
        b = first + tl.arange(0, STEP)
        n = tl.load(counts_ptr + b[:, None] * EXPERTS + e[None, :],
                    mask=(b < blocks)[:, None] & (e < EXPERTS)[None, :], other=0)
        count += tl.sum(n, 0)
        before += tl.sum(tl.where((b < block)[:, None], n, 0), 0)
    start = tl.cumsum(count, 0) - count
    if block == 0:
        tl.store(starts_ptr + e, start, mask=e < EXPERTS)
        tl.store(starts_ptr + EXPERTS, tokens * USED)
    token = block * BLOCK + tl.arange(0, BLOCK)
    there = token < tokens
    used = tl.zeros([BLOCK, BLOCK_E], tl.int32)
    for k in tl.static_range(USED):
        mine = tl.load(chosen_ptr + token * USED + k, mask=there, other=-1)
        used += (e[None, :] == mine[:, None]).to(tl.int32)
    place = (start + before)[None, :] + tl.cumsum(used, 0) - used
    for k in tl.static_range(USED):
        mine = tl.load(chosen_ptr + token * USED + k, mask=there, other=-1)
        at = tl.sum(tl.where(e[None, :] == mine[:, None], place, 0), 1)
        tl.store(order_ptr + at, token * USED + k, mask=there)


def route_triton(scores: Tensor, used: int, normalised: bool, fixed: bool = False) -> Routing:
    """The routing of scores (T, E), T at least 1, float32 with a stride of 1 within a row.

    fixed: by the same kernels for any number of tokens.
    """
    tokens, experts = scores.shape
    wide = triton.next_power_of_2(experts)
    block = min(_MOST_TOKENS, max(16, 1024 // wide))
    warps = 8 if wide > 32 else 4
    blocks = triton.cdiv(tokens, block)
    one = blocks == 1 and not fixed
    where = scores.device
    weights = torch.empty(tokens, used, dtype=torch.float32, device=where)
    chosen = torch.empty(tokens * used, dtype=torch.int32, device=where)
    order = torch.empty_like(chosen)
    counts = torch.empty(blocks, experts, dtype=torch.int32, device=where)
    starts = torch.empty(experts + 1, dtype=torch.int32, device=where)
    _choose_kernel[(blocks,)](
        scores, weights, chosen, counts, order, starts, tokens, scores.stride(0), EXPERTS=experts,
        USED=used, NORMALISED=normalised, BLOCK=block, BLOCK_E=wide, ONE=one,
        num_warps=warps, **overlap(scores))
    if not one:
        _order_kernel[(blocks,)](
            chosen, counts, order, starts, tokens, blocks, EXPERTS=experts, USED=used,
            BLOCK=block, BLOCK_E=wide, STEP=max(1, 2048 // wide), num_warps=warps,
            **overlap(scores))
    return Routing(weights, order, starts)
