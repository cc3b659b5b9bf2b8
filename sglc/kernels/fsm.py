"""Token-class tables of regular constraints, side by side on one device.

A table says which token leads which state to which, without the CPU (`sglc.grammar.tables` makes
them).  A row of a batch names its table, -1 for none, and its state, counted from the table's
start state 0; state -1 allows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Tables(Protocol):
    """One constraint's arrays, as `sglc.grammar.tables.TokenTables` describes them."""

    class_of_token: np.ndarray
    group: np.ndarray
    offset: np.ndarray
    next: np.ndarray
    row_id: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, slots=True)
class FsmTables:
    """N tables.

    class_of_token: int16 (2 N, V), bits of uint16.  group: uint8, offset: int32, mask_of: int32
    (all states).  next: int16 (all cells).  masks: int32 (all masks, words).
    base: int64 (N, 3), where a table's states, cells and masks begin.
    """

    class_of_token: Tensor
    group: Tensor
    offset: Tensor
    mask_of: Tensor
    next: Tensor
    masks: Tensor
    base: Tensor


def pack_tables(tables: Sequence[Tables], device: torch.device | str = "cpu") -> FsmTables:
    """The tables, at least one, in this order, all of one vocabulary, on `device`."""
    sizes = np.array([(len(t.group), len(t.next), len(t.rows)) for t in tables], dtype=np.int64)

    def joined(arrays: list[np.ndarray], kind: Any) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(kind, copy=False)).to(device)

    return FsmTables(
        torch.from_numpy(np.concatenate([t.class_of_token for t in tables]).view(np.int16)
                         ).to(device),
        joined([t.group for t in tables], np.uint8),
        joined([t.offset for t in tables], np.int32),
        joined([t.row_id for t in tables], np.int32),
        joined([t.next for t in tables], np.int16),
        joined([t.rows for t in tables], np.int32),
        torch.from_numpy(sizes.cumsum(axis=0) - sizes).to(device))


def next_states(tables: FsmTables, table: Tensor, state: Tensor, token: Tensor) -> Tensor:
    """The states after `token`; -1 where it is not allowed, `state` where there is no table.

    table: int32, state: int32, token: int64, all (R,).
    """
    alive = (table >= 0) & (state >= 0)
    which = table.clamp(min=0).long()
    states, cells, _ = tables.base[which].unbind(1)
    at = states + state.clamp(min=0).long()
    kind = tables.class_of_token[2 * which + tables.group[at].long(), token.clamp(min=0)]
    cell = cells + tables.offset[at].long() + (kind.long() & 0xFFFF)
    after = tables.next[cell].int()
    return torch.where(alive & (token >= 0), after, state)
