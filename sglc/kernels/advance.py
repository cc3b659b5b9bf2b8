"""From the tokens drawn to the inputs of the next decode step, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.kernels.fsm import FsmTables, next_states


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """The next step's inputs for R rows of one token each, changed in place.

    ids, positions, slots: int64 (R,), as in a step's batch; index: int64 (R,), tokens drawn.
    slot_table: int32 or int64, flat: position p of row r has the slot
        slot_table[slot_base[r] + p]; it is filled for the positions to come.
    slot_base: int64 (R,).
    history: int64 (R, L), tokens drawn: number i of a row at i; None to keep none.
    tables, table, state: see `fsm`; None if no row has a table.
    tally, tally_row: see `draws`; None if no row has one.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    index: Tensor
    slot_table: Tensor
    slot_base: Tensor
    history: Tensor | None = None
    tables: FsmTables | None = None
    table: Tensor | None = None
    state: Tensor | None = None
    tally: Tensor | None = None
    tally_row: Tensor | None = None


def advance_torch(rows: DecodeRows, tokens: Tensor) -> None:
    """Take `tokens`, int64 (R,), into account; a row whose token is negative stays as it is."""
    real = tokens >= 0
    if rows.history is not None:
        at = rows.index.clamp(max=rows.history.shape[1] - 1)[:, None]
        kept = real & (rows.index < rows.history.shape[1])
        old = rows.history.gather(1, at)[:, 0]
        rows.history.scatter_(1, at, torch.where(kept, tokens, old)[:, None])
    rows.ids.copy_(torch.where(real, tokens, rows.ids))
    rows.positions.add_(real)
    rows.index.add_(real)
    slots = rows.slot_table[(rows.slot_base + rows.positions)].long()
    rows.slots.copy_(torch.where(real, slots, rows.slots))
    if rows.tables is not None and rows.table is not None and rows.state is not None:
        rows.state.copy_(next_states(rows.tables, rows.table, rows.state, tokens))
    if rows.tally is not None and rows.tally_row is not None:
        counted = real & (rows.tally_row >= 0)
        rows.tally[rows.tally_row[counted].long(), tokens[counted]] += 1
