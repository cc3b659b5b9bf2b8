"""`row_masks` as a Triton kernel, a program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.row_masks import MaskRows


@triton.jit
def _kernel(base_ptr, spared_ptr, held_ptr, table_base_ptr, mask_of_ptr, masks_ptr, class_ptr,
            group_ptr, offset_ptr, next_ptr, table_ptr, state_ptr, drawn_ptr, after_ptr, words_ptr,
            words_row_ptr, out_ptr, count, vocab, SPARED: tl.constexpr, HELD: tl.constexpr,
            TABLES: tl.constexpr, DRAWN: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    out = out_ptr + row * count
    own = tl.full([], 0, tl.int64)
    table = tl.full([], -1, tl.int32)
    state = tl.full([], 0, tl.int32)
    other = tl.full([], -1, tl.int64)
    if TABLES:
        table, state = tl.load(table_ptr + row), tl.load(state_ptr + row)
        if (table >= 0) & (state >= 0):
            states = tl.load(table_base_ptr + 3 * table)
            if DRAWN:
                after = tl.load(after_ptr + row)
                if after >= 0:  # the state that the row's last token led to
                    last = tl.maximum(tl.load(drawn_ptr + after), 0)
                    group = tl.load(group_ptr + states + state).to(tl.int64)
                    kind = tl.load(class_ptr + (2 * table.to(tl.int64) + group) * vocab + last)
                    cell = tl.load(table_base_ptr + 3 * table + 1)
                    cell += tl.load(offset_ptr + states + state) + (kind.to(tl.int64) & 0xFFFF)
                    state = tl.load(next_ptr + cell).to(tl.int32)
        if (table >= 0) & (state >= 0):
            own = tl.load(table_base_ptr + 3 * table + 2)
            own += tl.load(mask_of_ptr + tl.load(table_base_ptr + 3 * table) + state)
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
            if table >= 0:
                if state >= 0:
                    word &= tl.load(masks_ptr + own * count + at, mask=inside, other=0)
                else:
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
    fsm, words = rows.tables is not None, rows.words is not None
    drawn = fsm and rows.after is not None
    t = rows.tables
    if batch:
        _kernel[(batch,)](
            rows.base, rows.spared, rows.held, out if t is None else t.base,
            out if t is None else t.mask_of, out if t is None else t.masks,
            out if t is None else t.class_of_token, out if t is None else t.group,
            out if t is None else t.offset, out if t is None else t.next,
            rows.table if fsm else out, rows.state if fsm else out,
            rows.drawn if drawn else out, rows.after if drawn else out,
            rows.words if words else out, rows.words_row if words else out, out, count,
            0 if t is None else t.class_of_token.shape[1], SPARED=rows.spared.shape[1],
            HELD=rows.held.shape[1], TABLES=fsm, DRAWN=drawn, WORDS=words,
            BLOCK=min(1024, triton.next_power_of_2(count)), num_warps=4)
    return out
