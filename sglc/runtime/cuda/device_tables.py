"""Constraints' tables on one device: those of the rows at hand, and others while there is room.

A table keeps its number while it is there, and all of them lie in memory that stays, so what was
launched, and graphs that were captured, find them.  Sequences and masks are not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sglc.kernels.fsm import WIDTH, FsmTables, pack_table, packed_size
from sglc.runtime.rules import Rule

_log = logging.getLogger("sglc.runtime")

_BYTES = 128 << 20
_TABLES = 64


class DeviceTables:
    """`packed`: the tables of all rules that are `there`, in `limit` bytes, which are taken with
    the first; where the device does not have them, no rule ever is.

    words: of a mask.
    """

    def __init__(self, words: int, device: torch.device, limit: int = _BYTES) -> None:
        self._words = words
        self._device = device
        self._limit = limit
        self._number: dict[Rule, int] = {}  # those used last at the end
        self._end = 0  # words from here on are free
        self._base = np.zeros((_TABLES, WIDTH), np.int64)
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
        room = self._limit // 4
        for rule in (*stay, *fresh, *others):
            size = packed_size(_of(rule), self._words)
            if size <= room and len(kept) < _TABLES:
                kept.append(rule)
                room -= size
        if not any(rule in kept for rule in fresh) or not self._has_memory():
            return
        kept.reverse()
        self._keep(kept)

    def _has_memory(self) -> bool:
        """Whether the memory is there; it is taken now, if it has not been before."""
        if self.packed is None:
            try:
                self.packed = FsmTables.empty(self._limit // 4, _TABLES, self._device)
            except torch.OutOfMemoryError:
                _log.warning("no memory for constraints' tables: masks are made on the host")
                self._limit = 0
        return self.packed is not None

    def _keep(self, kept: list[Rule]) -> None:
        """Let these be there, and no others; there is room for them."""
        assert self.packed is not None
        before = self._number
        for rule in before:
            rule.there = False
        taken = {before[rule] for rule in kept if rule in before}
        free = (i for i in range(_TABLES) if i not in taken)
        self._number = {rule: before[rule] if rule in before else next(free) for rule in kept}
        fresh = [rule for rule in kept if rule not in before]
        if 4 * (self._end + sum([packed_size(_of(rule), self._words) for rule in fresh])) \
                > self._limit:
            self._end, fresh = 0, kept  # closer together, in stream order
        for rule in fresh:
            data, self._base[self._number[rule]] = pack_table(_of(rule), self._words, self._end)
            to = self.packed.words[self._end:self._end + len(data)]
            to.copy_(torch.from_numpy(data))
            self._end += len(data)
        self.packed.base.copy_(torch.from_numpy(self._base))
        for rule in kept:
            rule.there = True


def _of(rule: Rule) -> Any:
    """The rule's tables as `fsm.Tables`."""
    t = rule.tables
    assert t is not None
    return SimpleNamespace(class_of_token=t.class_of_token, group=t.group, offset=t.offset,
                           next=t.next, row_id=t.row_id, rows=t.rows, free=rule.free)
