"""`sample` as Triton kernels: thresholds where a row is filtered, one pass over the logits, and
the best of its parts.  No host synchronisation; shapes and launches depend on shapes alone."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.draws import Draws
from sglc.kernels.filter_triton import thresholds
from sglc.kernels.score_triton import (
    gumbel,
    key_of,
    penalties_of,
    rough_gumbel,
    value_of,
    words_of_ids,
    words_of_run,
)

_NONE = tl.constexpr(0x7FFFFFFF)
_PROGRAMS = 528  # four a processor of the GPUs this was measured on


@triton.jit
def _kept(value, at, border, cut):
    order = key_of(value.to(tl.float32))
    return (order > border) | ((order == border) & (at <= cut))


@triton.jit
def _columns(logits_ptr, ids_ptr, mask_ptr, tally_ptr, at, count, repetition, frequency, presence,
             PENALTIES: tl.constexpr, IDS: tl.constexpr):
    """(tokens, their logits) of the columns `at`."""
    inside = at < count
    ids = at
    if IDS:
        ids = tl.load(ids_ptr + at, mask=inside, other=-1)
        inside = inside & (ids >= 0)
    return ids, value_of(logits_ptr, mask_ptr, tally_ptr, ids, at, inside, repetition, frequency,
                         presence, PENALTIES)


@triton.jit
def _scan(logits_ptr, ids_ptr, mask_ptr, tally_ptr, first, last, count, repetition, frequency,
          presence, heat, border, cut, index, low, high, BLOCK: tl.constexpr,
          PENALTIES: tl.constexpr, FILTER: tl.constexpr, IDS: tl.constexpr, NOISE: tl.constexpr):
    """(best score, its column or _NONE, whether one is NaN) of the columns first .. last - 1."""
    kind: tl.constexpr = tl.float64 if PENALTIES or NOISE else tl.float32
    best = tl.full([BLOCK], -float("inf"), kind)
    place = tl.full([BLOCK], _NONE, tl.int32)
    broken = tl.zeros([BLOCK], tl.int32)
    for start in range(first, last, BLOCK):
        at = start + tl.arange(0, BLOCK)
        ids, value = _columns(logits_ptr, ids_ptr, mask_ptr, tally_ptr, at, count, repetition,
                              frequency, presence, PENALTIES, IDS)
        broken |= (value != value).to(tl.int32)
        score = value.to(kind)
        if NOISE:
            if FILTER:
                score = tl.where(_kept(value, at, border, cut), score, -float("inf"))
            score = score / heat
            if IDS:
                score += gumbel(words_of_ids(ids, index, low, high))
            else:
                score += gumbel(words_of_run(start, index, low, high, BLOCK))
        better = score > best
        best = tl.where(better, score, best)
        place = tl.where(better, at, place)
    top = tl.max(best, axis=0)
    where = tl.min(tl.where(best == top, place, _NONE), axis=0)
    return top.to(tl.float64), where, tl.max(broken, axis=0)


@triton.jit
def _rough_scan(logits_ptr, ids_ptr, mask_ptr, tally_ptr, first, last, count, repetition,
                frequency, presence, heat, border, cut, index, low, high, BLOCK: tl.constexpr,
                PENALTIES: tl.constexpr, FILTER: tl.constexpr, IDS: tl.constexpr):
    """As `_scan` with noise, and whether the result is not to be relied on.

    Scores are made in float32, and again in float64 where they are within the error of the best.
    A lane remembers one of its columns, so it must not have two of them.
    """
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    second = tl.full([BLOCK], -float("inf"), tl.float32)
    place = tl.full([BLOCK], _NONE, tl.int32)
    broken = tl.zeros([BLOCK], tl.int32)
    cool = (1.0 / heat).to(tl.float32)
    for start in range(first, last, BLOCK):
        at = start + tl.arange(0, BLOCK)
        ids, value = _columns(logits_ptr, ids_ptr, mask_ptr, tally_ptr, at, count, repetition,
                              frequency, presence, PENALTIES, IDS)
        broken |= (value != value).to(tl.int32)
        score = value.to(tl.float32)
        if FILTER:
            score = tl.where(_kept(value, at, border, cut), score, -float("inf"))
        if IDS:
            score = score * cool + rough_gumbel(words_of_ids(ids, index, low, high))
        else:
            score = score * cool + rough_gumbel(words_of_run(start, index, low, high, BLOCK))
        better = score > best
        second = tl.maximum(second, tl.where(better, best, score))
        best = tl.where(better, score, best)
        place = tl.where(better, at, place)
    rough = tl.max(best, axis=0)
    near = rough - 1e-3 - 1e-6 * tl.abs(rough)
    doubtful = (tl.max(second, axis=0) >= near) & (rough > -float("inf"))
    doubtful = doubtful | (rough == float("inf"))
    some = (best >= near) & (place != _NONE)
    ids = tl.where(some, place, 0)
    if IDS:
        ids = tl.load(ids_ptr + ids, mask=some, other=0)
    value = value_of(logits_ptr, mask_ptr, tally_ptr, ids, place, some, repetition, frequency,
                     presence, PENALTIES).to(tl.float64)
    score = tl.where(some, value / heat + gumbel(words_of_ids(ids, index, low, high)),
                     -float("inf"))
    top = tl.max(score, axis=0)
    where = tl.min(tl.where(some & (score == top), place, _NONE), axis=0)
    return top, where, tl.max(broken, axis=0), doubtful


@triton.jit
def _kernel(logits_ptr, ids_ptr, mask_ptr, temperature_ptr, key_ptr, index_ptr, penalties_ptr,
            tally_ptr, tally_row_ptr, border_ptr, cut_ptr, best_ptr, best_id_ptr, count,
            mask_stride, vocab, per_part, BLOCK: tl.constexpr, PENALTIES: tl.constexpr,
            FILTER: tl.constexpr, IDS: tl.constexpr):
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    heat = tl.load(temperature_ptr + row)
    key = tl.load(key_ptr + row)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    index = tl.load(index_ptr + row).to(tl.uint32)
    tally_row, repetition, frequency, presence = penalties_of(
        penalties_ptr, tally_row_ptr, row, PENALTIES)
    border = tl.full([], 0, tl.int32)
    cut = tl.full([], 0, tl.int32)
    if FILTER:
        border, cut = tl.load(border_ptr + row), tl.load(cut_ptr + row)
    logits, ids = logits_ptr + row * count, ids_ptr
    if IDS:
        ids += row * count
    mask, tally = mask_ptr + row * mask_stride, tally_ptr + tally_row * vocab
    first = part * per_part
    last = tl.minimum(first + per_part, count)
    if heat > 0.0:
        top, where, broken, doubtful = _rough_scan(
            logits, ids, mask, tally, first, last, count, repetition, frequency, presence, heat,
            border, cut, index, low, high, BLOCK, PENALTIES, FILTER, IDS)
        if doubtful:
            top, where, broken = _scan(
                logits, ids, mask, tally, first, last, count, repetition, frequency, presence,
                heat, border, cut, index, low, high, BLOCK, PENALTIES, FILTER, IDS, True)
    else:
        top, where, broken = _scan(
            logits, ids, mask, tally, first, last, count, repetition, frequency, presence, heat,
            border, cut, index, low, high, BLOCK, PENALTIES, FILTER, IDS, False)
    token = where
    if IDS:
        token = tl.load(ids + where, mask=where != _NONE, other=-1)
    token = tl.where(where == _NONE, -1, token)
    token = tl.where(broken != 0, -2, token)
    out = row * tl.num_programs(1) + part
    tl.store(best_ptr + out, top)
    tl.store(best_id_ptr + out, token)


@triton.jit
def _best_kernel(best_ptr, best_id_ptr, out_ptr, parts, PARTS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    best = tl.load(best_ptr + row * parts + part, mask=part < parts, other=-float("inf"))
    token = tl.load(best_id_ptr + row * parts + part, mask=part < parts, other=-1)
    top = tl.max(best, axis=0)
    found = tl.min(tl.where((best == top) & (token >= 0), token, 0x7FFFFFFF), axis=0)
    found = tl.where(found == 0x7FFFFFFF, -1, found)
    found = tl.where(tl.min(token, axis=0) == -2, -2, found)
    tl.store(out_ptr + row, found.to(tl.int64))


def sample_triton(logits: Tensor, mask: Tensor, draws: Draws,
                  ids: Tensor | None = None) -> Tensor:
    """As `sample_torch`, of contiguous tensors."""
    rows, count = logits.shape
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if not rows:
        return out
    block = min(1024, max(16, triton.next_power_of_2(count)))
    parts = max(1, min(triton.cdiv(count, block), triton.cdiv(_PROGRAMS, rows)))
    per_part = triton.cdiv(triton.cdiv(count, parts), block) * block
    parts = triton.cdiv(count, per_part)
    best = torch.empty(rows, parts, dtype=torch.float64, device=logits.device)
    best_id = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    limits = thresholds(logits, mask, draws, ids) if draws.filtered else (out, out)
    penalised = draws.penalties is not None
    _kernel[(rows, parts)](
        logits, out if ids is None else ids, mask, draws.temperature, draws.key, draws.index,
        draws.penalties if penalised else out, draws.tally if penalised else out,
        draws.tally_row if penalised else out, *limits, best, best_id, count,
        mask.stride(0) if len(mask) > 1 else 0,
        draws.tally.shape[1] if draws.tally is not None else 0, per_part, BLOCK=block,
        PENALTIES=penalised, FILTER=draws.filtered, IDS=ids is not None, num_warps=4)
    _best_kernel[(rows,)](best, best_id, out, parts, PARTS=triton.next_power_of_2(parts),
                          num_warps=1)
    return out
