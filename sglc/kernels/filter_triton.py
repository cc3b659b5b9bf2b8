"""Top-k, top-p and min-p as thresholds: the part of `sample` that looks at a whole row.

What a row keeps are its best tokens down to some value, and of the tokens equal to that one the
first few.  A program finds both for one row without sorting: candidates near the best are
gathered, which nearly always suffice, and the value is found by halving the interval it lies in.
Order is that of float32 values; probabilities are summed in float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.draws import Draws
from sglc.kernels.score_triton import key_of, penalties_of, value_of, value_of_key

# Candidates are at least e^-3.5 times as likely as the best, or, where that is too few, e^-7 or
# e^-12 times.
_FAR, _MIDDLE, _CLOSE = tl.constexpr(12.0), tl.constexpr(7.0), tl.constexpr(3.5)
_LOWEST = tl.constexpr(-2139095041)  # the key of -inf


@triton.jit
def _weight(value, top, heat):
    """exp((value - top) / heat), 0 for -inf; float64."""
    return tl.exp((value - top) / heat).to(tl.float64)


@triton.jit
def _border(values_ptr, count, least, best, limit, top, heat, BLOCK: tl.constexpr,
            MASS: tl.constexpr):
    """(key, above): the smallest key from `least` on such that the tokens above it are fewer than
    `limit`, or of a smaller mass, and what is above."""
    low = least.to(tl.int64) - 1
    high = best.to(tl.int64)
    above = tl.full([], 0.0, tl.float64)
    while high - low > 1:
        step = high - low
        a = low + tl.maximum(step // 4, 1)
        b = low + tl.maximum(step // 2, 1)
        c = low + tl.maximum(step * 3 // 4, 1)
        sum_a = tl.zeros([BLOCK], tl.float64)
        sum_b = tl.zeros([BLOCK], tl.float64)
        sum_c = tl.zeros([BLOCK], tl.float64)
        for start in range(0, count, BLOCK):
            at = start + tl.arange(0, BLOCK)
            value = tl.load(values_ptr + at, mask=at < count, other=-float("inf"))
            key = key_of(value).to(tl.int64)
            if MASS:
                weight = _weight(value, top, heat)
            else:
                weight = tl.where(at < count, 1.0, 0.0).to(tl.float64)
            sum_a += tl.where(key > a, weight, 0.0)
            sum_b += tl.where(key > b, weight, 0.0)
            sum_c += tl.where(key > c, weight, 0.0)
        of_a, of_b, of_c = tl.sum(sum_a), tl.sum(sum_b), tl.sum(sum_c)
        above = tl.where(of_a < limit, of_a, tl.where(of_b < limit, of_b,
                         tl.where(of_c < limit, of_c, above)))
        high = tl.where(of_a < limit, a, tl.where(of_b < limit, b,
                        tl.where(of_c < limit, c, high)))
        low = tl.where(of_a < limit, low, tl.where(of_b < limit, a,
                       tl.where(of_c < limit, b, c)))
    return high.to(tl.int32), above


@triton.jit
def _kernel(logits_ptr, ids_ptr, mask_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr,
            penalties_ptr, tally_ptr, tally_row_ptr, values_ptr, near_ptr, near_at_ptr,
            key_ptr, cut_ptr, count, mask_stride, vocab, BLOCK: tl.constexpr,
            NEAR: tl.constexpr, PENALTIES: tl.constexpr, IDS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    heat64 = tl.load(temperature_ptr + row)
    top_k = tl.load(top_k_ptr + row)
    top_p = tl.load(top_p_ptr + row)
    min_p = tl.load(min_p_ptr + row)
    some = (top_k > 0) & (top_k < count)
    border = tl.full([], _LOWEST, tl.int32)
    cut = tl.full([], 0x7FFFFFFF, tl.int32)
    if (heat64 > 0.0) & (some | (top_p < 1.0) | (min_p > 0.0)):
        heat = heat64.to(tl.float32)
        tally_row, repetition, frequency, presence = penalties_of(
            penalties_ptr, tally_row_ptr, row, PENALTIES)
        values = values_ptr + row * count
        best = tl.full([BLOCK], -float("inf"), tl.float64)
        for start in range(0, count, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < count
            ids = at
            if IDS:
                ids = tl.load(ids_ptr + row * count + at, mask=inside, other=-1)
                inside = inside & (ids >= 0)
            value = value_of(logits_ptr + row * count, mask_ptr + row * mask_stride,
                             tally_ptr + tally_row * vocab, ids, at, inside, repetition,
                             frequency, presence, PENALTIES)
            best = tl.maximum(best, value.to(tl.float64))
            tl.store(values + at, value.to(tl.float32), mask=at < count)
        tl.debug_barrier()
        best64 = tl.max(best, axis=0)
        top = best64.to(tl.float32)
        if (some | (top_p < 1.0)) & (top > -float("inf")):
            near, near_at = near_ptr + row * NEAR, near_at_ptr + row * NEAR
            total = tl.zeros([BLOCK], tl.float64)
            mass_far = tl.zeros([BLOCK], tl.float64)
            mass_middle = tl.zeros([BLOCK], tl.float64)
            mass_close = tl.zeros([BLOCK], tl.float64)
            far = tl.zeros([BLOCK], tl.int32)
            middle = tl.zeros([BLOCK], tl.int32)
            close = tl.zeros([BLOCK], tl.int32)
            for start in range(0, count, BLOCK):
                at = start + tl.arange(0, BLOCK)
                value = tl.load(values + at, mask=at < count, other=-float("inf"))
                weight = _weight(value, top, heat)
                total += weight
                mass_far += tl.where(value >= top - _FAR * heat, weight, 0.0)
                mass_middle += tl.where(value >= top - _MIDDLE * heat, weight, 0.0)
                mass_close += tl.where(value >= top - _CLOSE * heat, weight, 0.0)
                far += (value >= top - _FAR * heat).to(tl.int32)
                middle += (value >= top - _MIDDLE * heat).to(tl.int32)
                close += (value >= top - _CLOSE * heat).to(tl.int32)
            mass = tl.sum(total)
            wanted_mass = tl.where(some, 0.0, top_p * mass)
            wanted_count = tl.where(some, top_k, 0)
            found = tl.sum(close)
            least = top - _CLOSE * heat
            if (found < wanted_count) | (tl.sum(mass_close) < wanted_mass):
                found = tl.sum(middle)
                least = top - _MIDDLE * heat
                if (found < wanted_count) | (tl.sum(mass_middle) < wanted_mass):
                    found = tl.sum(far)
                    least = top - _FAR * heat
                    if (found < wanted_count) | (tl.sum(mass_far) < wanted_mass):
                        found = tl.full([], 0x7FFFFFFF, tl.int32)
            enough = found <= NEAR
            of = values
            n = count
            lowest = tl.full([], _LOWEST, tl.int32)
            if enough:
                done = tl.full([], 0, tl.int32)
                for start in range(0, count, BLOCK):
                    at = start + tl.arange(0, BLOCK)
                    value = tl.load(values + at, mask=at < count, other=-float("inf"))
                    wanted = value >= least
                    place = done + tl.cumsum(wanted.to(tl.int32), axis=0) - 1
                    tl.store(near + place, value, mask=wanted)
                    tl.store(near_at + place, at, mask=wanted)
                    done += tl.sum(wanted.to(tl.int32), axis=0)
                tl.debug_barrier()
                of = near
                n = found
                lowest = key_of(least)
            high = key_of(top)
            if some:
                border, above = _border(of, n, lowest, high, top_k.to(tl.float64), top, heat, BLOCK,
                                        False)
                kept = top_k.to(tl.float64) - above
                if top_p < 1.0:
                    better = tl.zeros([BLOCK], tl.float64)
                    for start in range(0, n, BLOCK):
                        at = start + tl.arange(0, BLOCK)
                        value = tl.load(of + at, mask=at < n, other=-float("inf"))
                        better += tl.where(key_of(value) > border,
                                           _weight(value, top, heat), 0.0)
                    mass = tl.sum(better) + kept * _weight(value_of_key(border), top, heat)
            else:
                kept = tl.full([], 1e18, tl.float64)
            if top_p < 1.0:
                nucleus, above = _border(of, n, lowest, high, top_p * mass, top, heat, BLOCK,
                                         True)
                equal = _weight(value_of_key(nucleus), top, heat)
                inside_p = tl.maximum(tl.ceil((top_p * mass - above) / equal), 1.0)
                if nucleus > border:
                    kept = inside_p
                elif nucleus == border:
                    kept = tl.minimum(kept, inside_p)
                border = tl.maximum(border, nucleus)
            # The place of the last of the equals that are kept.
            seen = tl.full([], 0, tl.int32)
            last = tl.minimum(kept, 2.0e9).to(tl.int32)
            where = tl.full([], 0x7FFFFFFF, tl.int32)
            for start in range(0, n, BLOCK):
                at = start + tl.arange(0, BLOCK)
                value = tl.load(of + at, mask=at < n, other=float("nan"))
                same = ((key_of(value) == border) & (at < n)).to(tl.int32)
                nth = seen + tl.cumsum(same, axis=0)
                where = tl.minimum(where, tl.min(
                    tl.where((same != 0) & (nth == last), at, 0x7FFFFFFF), axis=0))
                seen += tl.sum(same, axis=0)
            cut = where
            if enough & (where < 0x7FFFFFFF):
                cut = tl.load(near_at + where)
        if (min_p > 0.0) & (top > -float("inf")):
            floor = best64 / heat64 + tl.log(min_p)
            # The border as a key, give or take the rounding of the product.
            near_floor = key_of((floor * heat64).to(tl.float32))
            least_key = near_floor + 3
            for i in tl.static_range(6):
                key = near_floor + 2 - i
                if value_of_key(key).to(tl.float64) / heat64 >= floor:
                    least_key = key
            if least_key > border:
                border = least_key - 1
                cut = tl.full([], -1, tl.int32)
    tl.store(key_ptr + row, border)
    tl.store(cut_ptr + row, cut)


def thresholds(logits: Tensor, mask: Tensor, draws: Draws, ids: Tensor | None,
               near: int = 16384) -> tuple[Tensor, Tensor]:
    """(key, cut), int32 (R,): a row keeps its columns with a key above its `key`, and those equal
    to it up to column `cut`.  Arguments as for `sample_torch`."""
    rows, count = logits.shape
    block = min(4096, max(16, triton.next_power_of_2(count)))
    key = torch.empty(rows, dtype=torch.int32, device=logits.device)
    cut = torch.empty_like(key)
    values = torch.empty(rows, count, device=logits.device)
    gathered = torch.empty(rows, near, device=logits.device)
    places = torch.empty(rows, near, dtype=torch.int32, device=logits.device)
    penalised = draws.penalties is not None
    _kernel[(rows,)](
        logits, logits if ids is None else ids, mask, draws.temperature, draws.top_k,
        draws.top_p, draws.min_p, draws.penalties if penalised else key,
        draws.tally if penalised else key, draws.tally_row if penalised else key, values,
        gathered, places, key, cut, count, mask.stride(0) if len(mask) > 1 else 0,
        draws.tally.shape[1] if draws.tally is not None else 0, BLOCK=block, NEAR=near,
        PENALTIES=penalised, IDS=ids is not None, num_warps=min(16, max(1, block // 128)))
    return key, cut
