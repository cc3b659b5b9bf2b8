"""`row_masks` as a Triton kernel, a program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.follow_tokens_triton import where_now
from sglc.kernels.fsm import DEAD, WIDTH
from sglc.kernels.row_masks import MaskRows

_DEAD = tl.constexpr(DEAD)
_WIDTH = tl.constexpr(WIDTH)


@triton.jit
def _kernel(base_ptr, spared_ptr, held_ptr, tables_ptr, table_base_ptr, state_ptr, before_ptr,
            words_ptr, words_row_ptr, out_ptr, count, SPARED: tl.constexpr, HELD: tl.constexpr,
            TABLES: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    out = out_ptr + row * count
    own = tl.full([], 0, tl.int64)
    ruled = False
    alive = False
    other = tl.full([], -1, tl.int64)
    if TABLES:
        now = where_now(state_ptr, before_ptr, row)
        state = now & _DEAD
        ruled = (now >> 62) == 0
        alive = ruled & (state != _DEAD)
        if alive:
            base = table_base_ptr + _WIDTH * (now >> 32)
            own = tl.load(tables_ptr + tl.load(base) + 2 * state + 1).to(tl.int64) * count
            own += tl.load(base + 2)
    if WORDS:
        other = tl.load(words_row_ptr + row).to(tl.int64)
    left = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < count
        word = tl.load(base_ptr + at, mask=inside, other=0)
        for i in tl.static_range(SPARED):
            token = tl.load(spared_ptr + row * SPARED + i)
            word |= tl.where(at == (token >> 5), 1 << (token & 31), 0)
        if TABLES:
            if alive:
                word &= tl.load(tables_ptr + own + at, mask=inside, other=0)
            elif ruled:
                word = word * 0
        if WORDS:
            if other >= 0:
                word &= tl.load(words_ptr + other * count + at, mask=inside, other=0)
        tl.store(out + at, word, mask=inside)
        for i in tl.static_range(HELD):
            token = tl.load(held_ptr + row * HELD + i)
            word &= ~tl.where(at == (token >> 5), 1 << (token & 31), 0)
        left |= tl.where(inside, word, 0)
    if HELD > 0:
        tl.debug_barrier()
        if tl.max((left != 0).to(tl.int32), axis=0) != 0:
            for i in tl.static_range(HELD):
                token = tl.load(held_ptr + row * HELD + i)
                if token >= 0:
                    tl.atomic_and(out + (token >> 5), ~(1 << (token & 31)))


def row_masks_triton(rows: MaskRows) -> Tensor:
    """As `row_masks_torch`."""
    count = len(rows.base)
    batch = len(rows.spared)
    out = torch.empty(batch, count, dtype=torch.int32, device=rows.base.device)
    t, words = rows.tables, rows.words is not None
    if batch:
        _kernel[(batch,)](
            rows.base, rows.spared, rows.held, out if t is None else t.words,
            out if t is None else t.base, out if t is None else rows.state,
            out if t is None else rows.before, rows.words if words else out,
            rows.words_row if words else out, out, count, SPARED=rows.spared.shape[1],
            HELD=rows.held.shape[1], TABLES=t is not None, WORDS=words,
            BLOCK=min(1024, triton.next_power_of_2(count)), num_warps=4)
    return out
