"""Triton kernels that run a work list of attention units (`attention_units`), and their launch.

Split-KV attention with online softmax (FlashAttention-2, Dao 2023; Flash-Decoding, 2023), the
query heads of a KV head packed into the rows of a product; pieces are merged by log-sum-exp.
Grids are fixed by limits and counts are read from device memory, so that a captured graph serves
every work list that fits.  What the units stand for is not known here.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _keys(acc, top, total, q, low, high, pool, table, first, start, stop, count, unit, head, d,
          scale, HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
          BLOCK_N: tl.constexpr, MASKED: tl.constexpr, PACKED: tl.constexpr,
          WIDE_INDEX: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
          WINDOWED: tl.constexpr, CAP: tl.constexpr):
    """Take the keys start .. stop of a unit (whole blocks) into the softmax.

    acc, top, total: the weighted values, the largest score in base 2, the sum of weights.
    low, high: the keys that each row of q sees.  CAP: of the scores, in base 2 as well.
    """
    if PACKED:  # where the keys of further rows begin, and how far away in the table they are
        shift0 = tl.load(unit + 8)
        shift1 = tl.load(unit + 10)
        end1 = tl.load(unit + 11)
        shift2 = tl.load(unit + 12)
        end2 = tl.load(unit + 13)
        shift3 = tl.load(unit + 14)
        end3 = tl.load(unit + 15)
    for at in tl.range(start, stop, BLOCK_N, num_stages=STAGES):
        n = at + tl.arange(0, BLOCK_N)
        # Beyond the last key its slot is read again (so that no unwritten memory is) and masked.
        place = tl.minimum(n, count - 1)
        if PACKED:
            place += tl.where(place < end1, shift0, tl.where(
                place < end2, shift1, tl.where(place < end3, shift2, shift3)))
        slot = tl.load(table + first + place)
        if WIDE_INDEX:
            slot = slot.to(tl.int64)
        base = pool + slot * (2 * HEADS * D) + head * D
        if D == BLOCK_D:
            k = tl.load(base[None, :] + d[:, None])
            v = tl.load(base[:, None] + (d + HEADS * D)[None, :])
        else:
            k = tl.load(base[None, :] + d[:, None], mask=(d < D)[:, None], other=0.0)
            v = tl.load(base[:, None] + (d + HEADS * D)[None, :], mask=(d < D)[None, :],
                        other=0.0)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        if CAP > 0:  # tanh(x) is 1 - 2 / (1 + exp(2 x))
            scores = CAP - 2 * CAP / (1.0 + tl.exp2(scores * (2 * 1.4426950408889634 / CAP)))
        if MASKED:
            seen = n[None, :] < high[:, None]
            if PACKED or WINDOWED:
                seen &= n[None, :] >= low[:, None]
            scores = tl.where(seen, scores, float("-inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        if MASKED:
            safe = tl.where(new == float("-inf"), 0.0, new)
        else:
            safe = new
        weights = tl.exp2(scores - safe[:, None])
        fade = tl.exp2(top - safe)
        total = total * fade + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None], input_precision=PRECISION)
        top = new
    return acc, top, total


@triton.jit
def _unit(q_ptr, pool, table, out, partial, sums, unit, token_ptr, part_ptr, high_ptr, head,
          scale, window, GROUP: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
          BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
          PACKED: tl.constexpr, WIDE_INDEX: tl.constexpr, PRECISION: tl.constexpr,
          STAGES: tl.constexpr, WINDOWED: tl.constexpr, CAP: tl.constexpr):
    """One unit for one KV head; `unit` points to its numbers (`attention_units.Units`).

    PACKED: it may hold up to four rows with keys of their own.
    """
    entry = tl.load(unit)
    queries = tl.load(unit + 1)
    first = tl.load(unit + 2)
    count = tl.load(unit + 3)
    begin = tl.load(unit + 4)
    free = tl.load(unit + 5)
    piece = tl.load(unit + 6)
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    mine = m // GROUP < queries
    at = entry + tl.minimum(m // GROUP, queries - 1)
    low = tl.zeros([BLOCK_M], tl.int32)
    if PACKED:
        for i in tl.static_range(1, 4):
            end = tl.load(unit + 9 + 2 * i)
            low = tl.where((m // GROUP >= i) & (end < count), end, low)
    token = tl.load(token_ptr + at)
    high = tl.load(high_ptr + at) - begin
    if WINDOWED:
        low = tl.maximum(low, high - window)
    high = tl.minimum(high, count)
    row = token.to(tl.int64) * (HEADS * GROUP) + head * GROUP + m % GROUP
    inside = mine[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + row[:, None] * D + d[None, :], mask=inside, other=0.0)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    scale2 = scale * _LOG2E
    start = 0
    if WINDOWED:  # blocks that no query sees are left out; few are seen by all of them whole
        start = tl.minimum(tl.min(low, 0), count) // BLOCK_N * BLOCK_N
    elif not PACKED:
        start = free // BLOCK_N * BLOCK_N
        acc, top, total = _keys(
            acc, top, total, q, low, high, pool, table, first, 0, start, count, unit, head,
            d, scale2, HEADS, D, BLOCK_D, BLOCK_N, False, False, WIDE_INDEX, PRECISION, STAGES,
            False, CAP)
    acc, top, total = _keys(
        acc, top, total, q, low, high, pool, table, first, start, count, count, unit, head, d,
        scale2, HEADS, D, BLOCK_D, BLOCK_N, True, PACKED, WIDE_INDEX, PRECISION, STAGES,
        WINDOWED, CAP)
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    part = tl.load(part_ptr + at)
    alone = part < 0
    tl.store(out + row[:, None] * D + d[None, :], acc.to(out.dtype.element_ty),
             mask=inside & alone[:, None])
    slot = (part + piece).to(tl.int64) * (HEADS * GROUP) + head * GROUP + m % GROUP
    kept = mine & (part >= 0)
    tl.store(partial + slot[:, None] * D + d[None, :], acc.to(partial.dtype.element_ty),
             mask=inside & kept[:, None])
    tl.store(sums + slot, top + tl.log2(total), mask=kept)


@triton.jit
def units_kernel(q, pool, table, out, partial, sums, units, token, part, high, scale,
                 window, GROUP: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
                 BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                 PACKED: tl.constexpr, UNIT: tl.constexpr, WIDE_INDEX: tl.constexpr,
                 PRECISION: tl.constexpr, STAGES: tl.constexpr, WINDOWED: tl.constexpr,
                 CAP: tl.constexpr, OVERLAP: tl.constexpr, FIRST: tl.constexpr):
    """Grid (units * KV heads,): units of one class; those of no queries are left out.

    WINDOWED: a token sees the last `window` keys.  CAP: of the scores; 0 for none.
    OVERLAP: kernels launched later may start before this one ends, and this one ends after those
    launched before it.  FIRST: of a step; it waits for what was launched before, and only then
    lets others start, so that those of the step need not wait.
    """
    if OVERLAP:
        if FIRST:
            tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    pid = tl.program_id(0)
    unit = units + pid // HEADS * UNIT
    if tl.load(unit + 1) > 0:
        _unit(q, pool, table, out, partial, sums, unit, token, part, high, pid % HEADS, scale,
              window, GROUP, HEADS, D, BLOCK_D, BLOCK_M, BLOCK_N, PACKED, WIDE_INDEX, PRECISION,
              STAGES, WINDOWED, CAP * 1.4426950408889634)
    if OVERLAP and not FIRST:
        tl.extra.cuda.gdc_wait()


@triton.jit
def merge_kernel(out, partial, sums, pointers, HEADS: tl.constexpr, D: tl.constexpr,
                 BLOCK_D: tl.constexpr, BLOCK_H: tl.constexpr, AHEAD: tl.constexpr,
                 OVERLAP: tl.constexpr):
    """Grid (tokens, heads / BLOCK_H): one token's partial results, if it has any, into its output.

    HEADS: query heads.  AHEAD: results read at once.  A piece that saw no key has a sum of -inf
    and weighs nothing.
    """
    token = tl.program_id(0)
    start = tl.load(pointers + token)
    stop = tl.load(pointers + token + 1)
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
    if stop > start:
        h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
        d = tl.arange(0, BLOCK_D)
        acc = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
        top = tl.full([BLOCK_H], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_H], tl.float32)
        for at in tl.range(start, stop, AHEAD, num_stages=1):
            for i in tl.static_range(AHEAD):
                part = at + i + tl.zeros([BLOCK_H], tl.int64)
                there = (h < HEADS) & (part < stop)
                row = part * HEADS + h
                s = tl.load(sums + row, mask=there, other=float("-inf"))
                values = tl.load(partial + row[:, None] * D + d[None, :],
                                 mask=there[:, None] & (d < D)[None, :], other=0.0)
                new = tl.maximum(top, s)
                safe = tl.where(new == float("-inf"), 0.0, new)
                weight = tl.exp2(s - safe)
                fade = tl.exp2(top - safe)
                acc = acc * fade[:, None] + values.to(tl.float32) * weight[:, None]
                total = total * fade + weight
                top = new
        acc = acc / tl.where(total > 0, total, 1.0)[:, None]
        to = (token.to(tl.int64) * HEADS + h)[:, None] * D + d[None, :]
        tl.store(out + to, acc.to(out.dtype.element_ty),
                 mask=(h < HEADS)[:, None] & (d < D)[None, :])
