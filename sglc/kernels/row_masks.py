"""The tokens that each row of a batch may draw, as packed bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.kernels.fsm import FsmTables, next_states


@dataclass(frozen=True, slots=True)
class MaskRows:
    """What masks depend on, for R rows.

    base: int32 (words,), the tokens that are drawn at all.
    spared: int32 (R, A), tokens allowed in spite of `base`, filled up with -1.
    held: int32 (R, H), tokens held back unless nothing else is possible, filled up with -1.
    tables, table, state: see `fsm`; None if no row has a table.
    words: int32 (C, words), masks from elsewhere, and words_row: int32 (R,), a row's own of
        them, -1 for none; None if no row has one.
    drawn: int64, tokens, and after: int32 (R,), which of them a row with a table has drawn since
        it was in `state`, -1 for none; None if no row has.
    """

    base: Tensor
    spared: Tensor
    held: Tensor
    tables: FsmTables | None = None
    table: Tensor | None = None
    state: Tensor | None = None
    words: Tensor | None = None
    words_row: Tensor | None = None
    drawn: Tensor | None = None
    after: Tensor | None = None


def row_masks_torch(rows: MaskRows) -> Tensor:
    """int32 (R, words): (base or spared) and the row's constraints, without what is held back."""
    out = rows.base[None] | _bits(rows.spared, len(rows.base))
    if rows.tables is not None and rows.table is not None and rows.state is not None:
        now = rows.state
        if rows.drawn is not None and rows.after is not None:
            token = rows.drawn[rows.after.clamp(min=0).long()].clamp(min=0)
            now = next_states(rows.tables, rows.table, now, token.masked_fill(rows.after < 0, -1))
        which, state = rows.table.clamp(min=0).long(), now.clamp(min=0).long()
        states, _, masks = rows.tables.base[which].unbind(1)
        row = masks + rows.tables.mask_of[states + state].long()
        allowed = rows.tables.masks[row].masked_fill((now < 0)[:, None], 0)
        out &= allowed.masked_fill((rows.table < 0)[:, None], -1)
    if rows.words is not None and rows.words_row is not None:
        allowed = rows.words[rows.words_row.clamp(min=0).long()]
        out &= allowed.masked_fill((rows.words_row < 0)[:, None], -1)
    rest = out & ~_bits(rows.held, len(rows.base))
    return torch.where((rest != 0).any(dim=1, keepdim=True), rest, out)


def _bits(ids: Tensor, words: int) -> Tensor:
    """Masks of exactly `ids`."""
    flat = torch.zeros(len(ids), words * 32 + 1, dtype=torch.int64, device=ids.device)
    flat.scatter_(1, torch.where(ids < 0, words * 32, ids.long()), 1)
    bits = flat[:, :-1].view(len(ids), words, 32) << torch.arange(32, device=ids.device)
    return bits.sum(dim=2).int()
