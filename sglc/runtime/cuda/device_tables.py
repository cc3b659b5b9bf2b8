"""Constraints' tables on one device: those of the rows at hand, and others while there is room.

Sequences and masks are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sglc.kernels.fsm import FsmTables, pack_tables
from sglc.runtime.rules import Rule

_BYTES = 128 << 20
_TABLES = 64


class DeviceTables:
    """`packed`: the tables of all rules that are `there`, about `limit` bytes of them at most.

    words: of a mask.
    """

    def __init__(self, words: int, device: torch.device, limit: int = _BYTES) -> None:
        self._words = words
        self._device = device
        self._limit = limit
        self._number: dict[Rule, int] = {}  # those used last at the end
        self.packed: FsmTables | None = None

    def number(self, rule: Rule) -> int:
        """Which of `packed` is the rule's, which must be `there`."""
        return self._number[rule]

    def hold(self, rules: Iterable[Rule | None]) -> None:
        """Let the tables of these rules be there, as far as there is room.  Those that are there
        already stay."""
        needed = {rule: None for rule in rules if rule is not None and rule.tables is not None}
        if all(rule.there for rule in needed):
            return
        stay = [rule for rule in needed if rule.there]
        fresh = [rule for rule in needed if not rule.there]
        others = [rule for rule in reversed(self._number) if rule not in needed]
        kept: list[Rule] = []
        room = self._limit
        for rule in (*stay, *fresh, *others):
            size = self._bytes(rule)
            if size <= room and len(kept) < _TABLES:
                kept.append(rule)
                room -= size
        if not any(rule in kept for rule in fresh):
            return
        for rule in self._number:
            rule.there = False
        kept.reverse()
        self._number = {rule: i for i, rule in enumerate(kept)}
        self.packed = pack_tables([_wide(rule, self._words) for rule in kept], self._device)
        for rule in kept:
            rule.there = True

    def _bytes(self, rule: Rule) -> int:
        tables = rule.tables
        assert tables is not None
        return tables.nbytes + 4 * len(tables.rows) * max(0, self._words - tables.rows.shape[1])


def _wide(rule: Rule, words: int) -> Any:
    """The rule's tables (see `fsm.Tables`), the masks as wide as the model's."""
    t = rule.tables
    assert t is not None
    rows = np.zeros((len(t.rows), words), np.int32)
    n = min(words, t.rows.shape[1])
    rows[:, :n] = t.rows[:, :n]
    return SimpleNamespace(class_of_token=t.class_of_token, group=t.group, offset=t.offset,
                           next=t.next, row_id=t.row_id, rows=rows)
