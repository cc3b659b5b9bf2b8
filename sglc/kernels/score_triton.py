"""What the sampling kernels share: masked and penalised logits, and Philox noise."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def value_of(logits_ptr, mask_ptr, tally_ptr, ids, columns, inside, repetition, frequency,
             presence, PENALTIES: tl.constexpr):
    """Logits of the tokens `ids` in `columns` of a row, -inf where the row's mask forbids them;
    float32, or float64 with penalties."""
    value = tl.load(logits_ptr + columns, mask=inside, other=-float("inf")).to(tl.float32)
    words = tl.load(mask_ptr + (ids >> 5), mask=inside, other=0)
    value = tl.where(((words >> (ids & 31)) & 1) != 0, value, -float("inf"))
    if PENALTIES:
        value = value.to(tl.float64)
        tally = tl.load(tally_ptr + ids, mask=inside, other=0)
        count = (tally & 0x3FFFFFFF).to(tl.float64)
        less = tl.where(value > 0, value / repetition, value * repetition)
        less -= frequency * count + tl.where(count > 0, presence, 0.0)
        value = tl.where(tally != 0, less, value)
    return value


@triton.jit
def penalties_of(penalties_ptr, tally_row_ptr, row, PENALTIES: tl.constexpr):
    """(tally row, repetition, frequency, presence) of a row."""
    if PENALTIES:
        tally_row = tl.load(tally_row_ptr + row).to(tl.int64)
        repetition = tl.load(penalties_ptr + 3 * row)
        frequency = tl.load(penalties_ptr + 3 * row + 1)
        presence = tl.load(penalties_ptr + 3 * row + 2)
        if tally_row < 0:  # any row of the tally, to no effect
            tally_row = tally_row * 0
            repetition = repetition * 0.0 + 1.0
            frequency = frequency * 0.0
            presence = presence * 0.0
    else:
        tally_row = tl.full([], 0, tl.int64)
        repetition = tl.full([], 0.0, tl.float64)
        frequency = tl.full([], 0.0, tl.float64)
        presence = tl.full([], 0.0, tl.float64)
    return tally_row, repetition, frequency, presence


@triton.jit
def philox(c0, c1, k0, k1):
    """The four words of Philox-4x32-10 at counters (c0, c1, 0, 0); all uint32 blocks."""
    c2 = c1 * 0
    c3 = c1 * 0
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def gumbel(words):
    """Noise of uint32 words, float64."""
    u = (words.to(tl.float64) + 0.5) * 2.3283064365386963e-10
    return -tl.log(-tl.log(u))


@triton.jit
def rough_gumbel(words):
    """The same within 1e-4, float32, at a tenth of the cost."""
    u = (words.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    c = ((words ^ 0xFFFFFFFF).to(tl.float32) + 0.5) * 2.3283064365386963e-10  # 1 - u
    series = c * (1.0 + c * (0.5 + c * (0.3333333333 + c * 0.25)))
    return -tl.log(tl.where(c < 0.015625, series, -tl.log(tl.maximum(u, 1e-10))))


@triton.jit
def words_of_run(first, index, low, high, COUNT: tl.constexpr):
    """Random words of the tokens first .. first + COUNT - 1; both are multiples of 4."""
    quads = (first // 4 + tl.arange(0, COUNT // 4)).to(tl.uint32)
    c0, c1, c2, c3 = philox(quads * 0 + index, quads, quads * 0 + low, quads * 0 + high)
    return tl.interleave(tl.interleave(c0, c2), tl.interleave(c1, c3))


@triton.jit
def words_of_ids(ids, index, low, high):
    """Random words of any tokens."""
    quads = (ids >> 2).to(tl.uint32)
    c0, c1, c2, c3 = philox(quads * 0 + index, quads, quads * 0 + low, quads * 0 + high)
    word = ids & 3
    return tl.where(word < 2, tl.where(word == 0, c0, c1), tl.where(word == 2, c2, c3))


@triton.jit
def key_of(value):
    """int32 keys in the order of float32 values; zeros of both signs are one."""
    bits = tl.where(value == 0, 0.0, value).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of_key(key):
    """The float32 value of a key."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
