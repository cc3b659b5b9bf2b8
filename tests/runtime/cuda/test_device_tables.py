"""Tables that come to a device, go, and are moved closer together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc import grammar
from sglc.grammar.canonical import Canonical
from sglc.kernels.follow_tokens import follow_tokens_torch
from sglc.kernels.fsm import DEAD, FsmTables, packed_size
from sglc.kernels.row_masks import MaskRows, row_masks_torch
from sglc.runtime.cuda.device_tables import DeviceTables, _of
from sglc.runtime.rules import Rule, Rules
from tests.runtime.common import TOKENIZER

WORDS = -(-TOKENIZER.vocab_size // 32) + 1  # a model of some more
PATTERNS = ["[a-f]{3,6}(, and then|; or else) [0-9]{2}", "(yes|no|maybe)( indeed)?", "[a-z ]{5,40}",
            '[^"]{1,20}', "[0-9]{1,3}", "(é漢|é字)+!{3}"]


def made() -> list[Rule]:
    rules = Rules(np.full(WORDS - 1, -1, np.int32), lambda: Canonical.of(TOKENIZER),
                  lambda make: make())
    rules.uses = 1
    return [rules.of(grammar.compile(regex=p, tokenizer=TOKENIZER)) for p in PATTERNS]


def check(tables: DeviceTables, rule: Rule) -> None:
    """The device's tables say what the rule's do, of each state and token."""
    own, packed = rule.tables, tables.packed
    assert own is not None and packed is not None
    states, vocab = len(own.group), own.class_of_token.shape[1]
    now = tables.number(rule) << 32 | torch.arange(states)
    cells = own.offset[:, None] + own.class_of_token[own.group].astype(np.int64)
    after = torch.from_numpy(own.next[cells].astype(np.int64))
    to = tables.number(rule) << 32 | (after & DEAD)
    free = torch.from_numpy(rule.free)[after.clamp(min=0)] & (after >= 0)
    tokens = torch.arange(vocab).expand(states, -1)
    found = follow_tokens_torch(packed, now.repeat_interleave(vocab), torch.zeros(1).long(),
                                tokens.reshape(-1))
    assert torch.equal(found[1].view(states, vocab), torch.where(free, to, ~to))
    none = torch.zeros(states, 0, dtype=torch.int32)
    masks = row_masks_torch(MaskRows(torch.full((WORDS,), -1, dtype=torch.int32), none, none,
                                     packed, now, torch.zeros(1).long())).numpy()
    wide = own.rows.shape[1]
    assert np.array_equal(masks[:, :wide], own.rows[own.row_id]) and not masks[:, wide:].any()


@given(st.lists(st.sets(st.integers(0, len(PATTERNS) - 1), max_size=4), max_size=9),
       st.sampled_from([12_000, 20_000, 1 << 20]))
@settings(max_examples=25, deadline=None)
def test_tables_that_come_and_go(turns: list[set[int]], limit: int) -> None:
    rules = made()
    tables = DeviceTables(WORDS, torch.device("cpu"), limit)
    memory = None
    for turn in turns:
        wanted = [rules[i] for i in turn]
        before = {rule: tables.number(rule) for rule in wanted if rule.there}
        tables.hold([*wanted, None])
        for rule, number in before.items():  # rows of it may be under way
            assert rule.there and tables.number(rule) == number
        there = [rule for rule in rules if rule.there]
        sizes = [4 * packed_size(_of(rule), WORDS) for rule in there]
        assert sum(sizes) <= limit
        if sum([4 * packed_size(_of(rule), WORDS) for rule in wanted]) <= limit:
            assert all(rule.there for rule in wanted)
        assert len({tables.number(rule) for rule in there}) == len(there)
        for rule in there:
            check(tables, rule)
        if tables.packed is not None:
            assert memory in (None, tables.packed.words.data_ptr())
            memory = tables.packed.words.data_ptr()


def test_a_device_without_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step fails for it: the host's masks are used, and nothing is tried again."""
    asked = []

    def none(*size: object) -> FsmTables:
        asked.append(size)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(FsmTables, "empty", none)
    rules, tables = made(), DeviceTables(WORDS, torch.device("cpu"))
    for rule in rules:
        tables.hold([rule, None])
    assert tables.packed is None and not any(rule.there for rule in rules)
    assert len(asked) == 1
