"""`advance` as one Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.advance import DecodeRows


@triton.jit
def _kernel(tokens_ptr, ids_ptr, positions_ptr, slots_ptr, index_ptr, slot_table_ptr,
            slot_base_ptr, history_ptr, class_ptr, group_ptr, offset_ptr, next_ptr,
            table_base_ptr, table_ptr, state_ptr, tally_ptr, tally_row_ptr, rows, length, vocab,
            tally_vocab, HISTORY: tl.constexpr, TABLES: tl.constexpr, TALLY: tl.constexpr,
            BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(tokens_ptr + row, mask=row < rows, other=-1)
    real = (row < rows) & (token >= 0)
    index = tl.load(index_ptr + row, mask=real, other=0)
    if HISTORY:
        tl.store(history_ptr + row.to(tl.int64) * length + index, token,
                 mask=real & (index < length))
    position = tl.load(positions_ptr + row, mask=real, other=0) + 1
    base = tl.load(slot_base_ptr + row, mask=real, other=0)
    slot = tl.load(slot_table_ptr + base + position, mask=real, other=0).to(tl.int64)
    tl.store(ids_ptr + row, token, mask=real)
    tl.store(positions_ptr + row, position, mask=real)
    tl.store(index_ptr + row, index + 1, mask=real)
    tl.store(slots_ptr + row, slot, mask=real)
    if TABLES:
        table = tl.load(table_ptr + row, mask=real, other=-1).to(tl.int64)
        state = tl.load(state_ptr + row, mask=real, other=-1)
        ruled = real & (table >= 0) & (state >= 0)
        at = tl.load(table_base_ptr + 3 * table, mask=ruled, other=0) + state
        cells = tl.load(table_base_ptr + 3 * table + 1, mask=ruled, other=0)
        group = tl.load(group_ptr + at, mask=ruled, other=0).to(tl.int64)
        kind = tl.load(class_ptr + (2 * table + group) * vocab + token, mask=ruled, other=0)
        cell = cells + tl.load(offset_ptr + at, mask=ruled, other=0) + (kind.to(tl.int64) & 0xFFFF)
        after = tl.load(next_ptr + cell, mask=ruled, other=0).to(tl.int32)
        tl.store(state_ptr + row, after, mask=ruled)
    if TALLY:
        tally_row = tl.load(tally_row_ptr + row, mask=real, other=-1).to(tl.int64)
        counted = real & (tally_row >= 0)
        cell_ptr = tally_ptr + tally_row * tally_vocab + token
        tl.store(cell_ptr, tl.load(cell_ptr, mask=counted, other=0) + 1, mask=counted)


def advance_triton(rows: DecodeRows, tokens: Tensor) -> None:
    """As `advance_torch`, of contiguous tensors."""
    if not len(tokens):
        return
    block = 32
    t, spare = rows.tables, tokens
    _kernel[(triton.cdiv(len(tokens), block),)](
        tokens, rows.ids, rows.positions, rows.slots, rows.index, rows.slot_table, rows.slot_base,
        spare if rows.history is None else rows.history,
        spare if t is None else t.class_of_token, spare if t is None else t.group,
        spare if t is None else t.offset, spare if t is None else t.next,
        spare if t is None else t.base, spare if rows.table is None else rows.table,
        spare if rows.state is None else rows.state, spare if rows.tally is None else rows.tally,
        spare if rows.tally_row is None else rows.tally_row, len(tokens),
        0 if rows.history is None else rows.history.shape[1],
        0 if t is None else t.class_of_token.shape[1],
        0 if rows.tally is None else rows.tally.shape[1], HISTORY=rows.history is not None,
        TABLES=t is not None, TALLY=rows.tally is not None, BLOCK=block, num_warps=1)
