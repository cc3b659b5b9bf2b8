"""The tokens that each row of a batch may draw, as packed bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.kernels.fsm import DEAD, NO_TABLE, FsmTables, whereabouts


@dataclass(frozen=True, slots=True)
class MaskRows:
    """What masks depend on, for R rows.

    base: int32 (words,), the tokens that are drawn at all.
    spared: int32 (R, A), tokens allowed in spite of `base`, filled up with -1.
    held: int32 (R, H), tokens held back unless nothing else is possible, filled up with -1.
    tables, state: int64 (R,), and before: see `fsm.whereabouts`; None if no row has a table.
    words: int32 (C, words), masks from elsewhere, and words_row: int32 (R,), a row's own of
        them, -1 for none; None if no row has one.
    """

    base: Tensor
    spared: Tensor
    held: Tensor
    tables: FsmTables | None = None
    state: Tensor | None = None
    before: Tensor | None = None
    words: Tensor | None = None
    words_row: Tensor | None = None


def row_masks_torch(rows: MaskRows) -> Tensor:
    """int32 (R, words): (base or spared) and the row's constraints, without what is held back."""
    count = len(rows.base)
    out = rows.base[None] | _bits(rows.spared, count)
    tables = rows.tables
    if tables is not None and rows.state is not None and rows.before is not None:
        now, alive, table = whereabouts(rows.state, rows.before)
        states, _, masks, *_ = tables.base[table].unbind(1)
        own = tables.words[states + 2 * (now & DEAD).masked_fill(~alive, 0) + 1].long()
        at = (masks + own * count).masked_fill(~alive, 0)
        allowed = tables.words[at[:, None] + torch.arange(count, device=at.device)]
        out &= allowed.masked_fill(~alive[:, None], 0).masked_fill((now == NO_TABLE)[:, None], -1)
    if rows.words is not None and rows.words_row is not None:
        allowed = rows.words[rows.words_row.clamp(min=0).long()]
        out &= allowed.masked_fill((rows.words_row < 0)[:, None], -1)
    rest = out & ~_bits(rows.held, count)
    return torch.where((rest != 0).any(dim=1, keepdim=True), rest, out)


def _bits(ids: Tensor, words: int) -> Tensor:
    """Masks of exactly `ids`."""
    flat = torch.zeros(len(ids), words * 32 + 1, dtype=torch.int64, device=ids.device)
    flat.scatter_(1, torch.where(ids < 0, words * 32, ids.long()), 1)
    bits = flat[:, :-1].view(len(ids), words, 32) << torch.arange(32, device=ids.device)
    return bits.sum(dim=2).int()
