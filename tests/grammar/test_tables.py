from __future__ import annotations

import random

import numpy as np
import pytest
from regexes import CHARACTER, DATE, EMAIL, IP
from toy_tokenizers import TableTokenizer, merged_tokenizer

import sglc.grammar as grammar
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.tables import TokenTables, token_tables


def compiled(pattern: str, tokenizer: TableTokenizer) -> FsmConstraint:
    constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
    assert isinstance(constraint, FsmConstraint)
    return constraint


def check(constraint: FsmConstraint, tables: TokenTables, states: list[int]) -> None:
    """The tables say what the constraint says."""
    size = constraint.index.vocab.size
    for s in states:
        state = int(tables.states[s])
        assert tables.accepting[s] == constraint.accepting(state)
        assert (tables.rows[tables.row_id[s]] == constraint.mask(state)).all()
        expected = [constraint.advance(state, token) for token in range(size)]
        found = tables.next[tables.offset[s] + tables.class_of_token[tables.group[s]].astype(int)]
        names = [None if t < 0 else int(tables.states[t]) for t in found.tolist()]
        assert names == expected


@pytest.mark.parametrize("pattern", [
    IP, EMAIL, DATE, r"\w{1,20}", "a", "(?:ab|c)+\n?", "[éê漢]{2}x?", r'"[^"\\]*"', "(?s).{0,6}"])
@pytest.mark.parametrize("without", [b"", b"\xc3q"])
def test_tables_say_what_the_constraint_says(pattern: str, without: bytes) -> None:
    tokenizer = merged_tokenizer(700, seed=2, without=without)
    constraint = compiled(pattern, tokenizer)
    tables = token_tables(constraint)
    assert tables is not None and tables.states[0] == constraint.start()
    assert (tables.class_of_token.dtype, tables.next.dtype) == (np.uint16, np.int16)
    assert tables.class_of_token.shape == (2, tokenizer.vocab_size)
    assert (tables.class_of_token[:, list(tokenizer.eos_ids)] == 1).all()
    rng = random.Random(0)
    count = len(tables.states)
    check(constraint, tables, [0, *rng.sample(range(count), min(count, 12))])
    # No two classes of a group, and no two rows, are the same.
    for group, classes in enumerate(tables.classes):
        starts = tables.offset[tables.group == group]
        columns = {tables.next[starts + c].tobytes() for c in range(2, classes)}
        assert len(columns) == classes - 2
    assert len({row.tobytes() for row in tables.rows}) == len(tables.rows)


def test_twins_and_control_tokens() -> None:
    tokenizer = TableTokenizer([b"a", b"b", b"a", b"ab", b"ab"], control=["<pad>", "<eos>", "<e>"],
                               ends=["<eos>", "<e>"])
    constraint = compiled("(ab)+", tokenizer)
    tables = token_tables(constraint)
    assert tables is not None
    kinds = tables.class_of_token[0].tolist()
    assert kinds[0] == kinds[2] and kinds[3] == kinds[4] and kinds[5] == 0
    assert kinds[6] == kinds[7] == 1
    check(constraint, tables, list(range(len(tables.states))))


@pytest.mark.slow
def test_the_readme_regex_is_small(large: TableTokenizer) -> None:
    constraint = compiled(CHARACTER, large)
    tables = token_tables(constraint)
    assert tables is not None and tables.nbytes < 10 << 20
    rng = random.Random(1)
    check(constraint, tables, rng.sample(range(len(tables.states)), 4))


def test_too_large_tables_are_not_made(merged: TableTokenizer) -> None:
    constraint = compiled(r"[a-z]{1,200}", merged)
    assert token_tables(constraint) is not None
    assert token_tables(constraint, max_states=100) is None
    assert token_tables(constraint, max_states=100) is None  # and that is kept
    assert token_tables(constraint, max_bytes=10_000) is None


def test_tables_are_kept(monkeypatch: pytest.MonkeyPatch, merged: TableTokenizer) -> None:
    constraint = compiled(DATE, merged)
    first = token_tables(constraint)
    monkeypatch.setattr("sglc.grammar.tables._made", None)
    again = token_tables(constraint)
    assert first is not None and again is not None
    for name in TokenTables.__slots__:
        assert np.array_equal(getattr(first, name), getattr(again, name))
