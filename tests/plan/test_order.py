"""The nested order: neighbours share most, and nothing moves without need."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from sglc.plan.lower_bound import FinalSequence, lower_bound
from sglc.plan.order import nested_order

prompts = st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=9)


def grouped(indices: list[int], rows: list[list[int]], depth: int) -> list[int]:
    """The definition: groups by the id at `depth`, by first occurrence; those that end alone."""
    if len(indices) < 2:
        return indices
    groups: dict[object, list[int]] = {}
    for i in indices:
        ends = len(rows[i]) == depth
        groups.setdefault(("end", i) if ends else rows[i][depth], []).append(i)
    out: list[int] = []
    for key, members in groups.items():
        out += members if isinstance(key, tuple) else grouped(members, rows, depth + 1)
    return out


@given(prompts)
def test_is_the_definition(rows: list[list[int]]) -> None:
    assert nested_order(rows) == grouped(list(range(len(rows))), rows, 0)


@given(prompts)
def test_with_room_for_one_everything_is_computed_once(rows: list[list[int]]) -> None:
    """Going from one to the next and forgetting all but its prefix computes the lower bound."""
    computed, before = 0, []
    for i in nested_order(rows):
        shared = 0
        while shared < min(len(before), len(rows[i])) and before[shared] == rows[i][shared]:
            shared += 1
        computed += len(rows[i]) - shared
        before = rows[i]
    assert computed == lower_bound([FinalSequence(r, len(r), len(r)) for r in rows]).prefill


def test_groups_stay_in_order_of_appearance() -> None:
    rows = [[9, i % 3, i] for i in range(9)] + [[1, 1]]
    order = nested_order(rows)
    assert [k for k, _ in groupby(order, lambda i: rows[i][:2])] == [[9, 0], [9, 1], [9, 2], [1, 1]]
    assert order == [0, 3, 6, 1, 4, 7, 2, 5, 8, 9]
    assert nested_order([]) == []
