"""Token-class tables of regular constraints, side by side on one device, and rows' states in them.

A table says which token leads which state to which, without the CPU (`sglc.grammar.tables` makes
them).  Where a row of a batch is, is one integer: `table << 32 | state`, the states of a table
counted from its start state 0, or `NO_TABLE`.  `~` of it stands for the same to the device, and
tells the host to look: nothing says there that another token is to be drawn for sure.  Where a
step takes it, -1 - i is wherever row i of the step before has come to.  Nothing is allowed in
state `DEAD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

DEAD = 0x7FFFFFFF
NO_TABLE = 1 << 62 | 0xFFFFFFFF
WIDTH = 5  # of `FsmTables.base`


class Tables(Protocol):
    """One constraint's arrays, as `sglc.grammar.tables.TokenTables` describes them.

    free: bool [states], where another token is to be drawn for sure.
    """

    class_of_token: np.ndarray
    group: np.ndarray
    offset: np.ndarray
    next: np.ndarray
    row_id: np.ndarray
    rows: np.ndarray
    free: np.ndarray


@dataclass(frozen=True, slots=True)
class FsmTables:
    """Up to N tables in one piece of memory, which stays where it is while tables come and go.

    words: int32, and halves: the same as int16.
    base: int64 (N, 5), where a table begins: in `words` its states, in `halves` its cells, in
        `words` its masks, each as wide as any, in `halves` the classes of tokens in group 0 and in
        group 1.  A state is two words: `offset << 2 | free << 1 | group`, and its mask.
    """

    words: Tensor
    halves: Tensor
    base: Tensor

    @classmethod
    def empty(cls, words: int, tables: int, device: torch.device | str = "cpu") -> FsmTables:
        """Memory of so many words for so many tables."""
        memory = torch.empty(words, dtype=torch.int32, device=device)
        return cls(memory, memory.view(torch.int16),
                   torch.zeros(tables, WIDTH, dtype=torch.int64, device=device))


def packed_size(table: Tables, words: int) -> int:
    """How many words of memory a table takes; words: of a mask."""
    halves = len(table.next) + table.class_of_token.size
    return 2 * len(table.group) + len(table.rows) * words + (halves + 1) // 2


def pack_table(table: Tables, words: int, at: int) -> tuple[np.ndarray, list[int]]:
    """(int32 [packed_size], the row of `base`) for a table that begins at word `at`."""
    states, cells = len(table.group), len(table.next)
    masks = 2 * states
    n = min(words, table.rows.shape[1])
    end = masks + len(table.rows) * words
    out = np.zeros(packed_size(table, words), np.int32)
    info = out[:masks].reshape(states, 2)
    info[:, 0] = table.offset.astype(np.int32) << 2 | table.free.astype(np.int32) << 1 | table.group
    info[:, 1] = table.row_id
    out[masks:end].reshape(len(table.rows), words)[:, :n] = table.rows[:, :n]
    halves = out[end:].view(np.int16)
    halves[:cells] = table.next
    halves[cells:cells + table.class_of_token.size] = table.class_of_token.view(np.int16).ravel()
    first = 2 * (at + end)
    kinds = first + cells
    return out, [at, first, at + masks, kinds, kinds + table.class_of_token.shape[1]]


def pack_tables(tables: Sequence[Tables], words: int,
                device: torch.device | str = "cpu") -> FsmTables:
    """These tables, in this order, on `device`; words: of a mask."""
    made = FsmTables.empty(sum([packed_size(t, words) for t in tables]), len(tables), device)
    at = 0
    for i, table in enumerate(tables):
        data, base = pack_table(table, words, at)
        made.words[at:at + len(data)] = torch.from_numpy(data).to(device)
        made.base[i] = torch.tensor(base)
        at += len(data)
    return made


def whereabouts(state: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(where rows are, whether in a table and not dead, the number of the table or 0).

    state: int64 (R,), as a step takes it.  before: int64, where the rows of the step before are.
    """
    now = torch.where(state < 0, before[(-1 - state).clamp(min=0)], state)
    now = torch.where(now < 0, ~now, now)
    none = now == NO_TABLE
    return now, ~none & (now & DEAD != DEAD), (now >> 32).masked_fill(none, 0)
