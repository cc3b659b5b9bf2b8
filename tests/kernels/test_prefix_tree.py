"""Shared prefixes found from slots alone, against a tree that is known."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sglc.kernels.prefix_tree import Shared, find_shared, worthwhile
from tests.kernels.trees import Tree, random_tree


def shared_positions(runs: list[Shared], rows: int) -> list[set[int]]:
    """Positions of each row that a run covers; no position twice."""
    covered: list[set[int]] = [set() for _ in range(rows)]
    for run in runs:
        assert run.begin < run.end and len(run.rows) >= 2
        for r in run.rows.tolist():
            new = set(range(run.begin, run.end))
            assert not covered[r] & new
            covered[r] |= new
    return covered


@given(st.integers(0, 2**32 - 1))
def test_every_shared_position_is_found(seed: int) -> None:
    tree: Tree = random_tree(seed)
    rows, table = tree.rows, tree.table
    runs = find_shared(rows, table)
    covered = shared_positions(runs, len(rows.starts))
    contexts = [table[o:o + n].tolist()
                for o, n in zip(rows.offsets.tolist(), rows.lengths.tolist(), strict=True)]
    for run in runs:  # runs name the same slots in all their rows
        parts = {tuple(contexts[r][run.begin:run.end]) for r in run.rows.tolist()}
        assert len(parts) == 1
    users: dict[int, int] = {}
    for slot in itertools.chain.from_iterable(contexts):
        users[slot] = users.get(slot, 0) + 1
    for context, got in zip(contexts, covered, strict=True):
        assert got == {p for p, slot in enumerate(context) if users[slot] > 1}
    # Each shared slot is read once.
    reads = [s for run in runs
             for s in contexts[int(run.rows[0])][run.begin:run.end]]
    assert len(reads) == len(set(reads))


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 60))
def test_runs_that_are_not_worth_it_go_to_those_below(seed: int, each: int, saved: int) -> None:
    tree = random_tree(seed)
    tokens = tree.rows.tokens
    found = find_shared(tree.rows, tree.table)
    kept = worthwhile(found, tokens, each, saved)
    saves = [(r.end - r.begin) * (len(r.rows) - 1) for r in kept]
    assert all(s >= each * tokens[r.rows].sum() for s, r in zip(saves, kept, strict=True))
    assert not kept or sum(saves) >= saved
    for covered, most in zip(shared_positions(kept, len(tokens)),
                             shared_positions(found, len(tokens)), strict=True):
        assert covered <= most
        assert covered == set(range(len(covered)))  # a prefix: rows go on from its end
    assert [(r.begin, r.end) for r in worthwhile(found, tokens, 0, 0)] == [
        (r.begin, r.end) for r in found]


def test_some_rows_only() -> None:
    tree = random_tree(5)
    assert find_shared(tree.rows, tree.table, np.array([0])) == []
    among = np.array([0, 2])
    for run in find_shared(tree.rows, tree.table, among):
        assert set(run.rows.tolist()) <= {0, 2}
