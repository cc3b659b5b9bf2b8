"""Which rows share an attention call, and that every token is in exactly one block."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.attention_plan import BLOCK, GROUP_KEYS, IN_PLACE, plan_attention
from sglc.runtime.batch import Row


def make_rows(sizes: list[tuple[int, int]], stride: int = 1) -> list[Row]:
    """Rows of (tokens before, new tokens), each with slots of its own."""
    rows, start, slot = [], 0, 0
    for done, n in sizes:
        rows.append(Row(start, n, slot + stride * np.arange(done + n)))
        start += n
        slot += stride * (done + n)
    return rows


def test_equal_decode_rows_share_calls_without_masks_or_reordering() -> None:
    plan = plan_attention(make_rows([(63, 1)] * 64))
    assert plan.order is None
    assert len(plan.groups) == 64 * 64 // GROUP_KEYS
    assert all(b.mask is None for g in plan.groups for b in g.blocks)


def test_one_row_in_a_run_is_read_in_place() -> None:
    (group,) = plan_attention(make_rows([(99, 1)])).groups
    assert group.slots == slice(0, 100) and group.rows == 1
    (group,) = plan_attention(make_rows([(99, 1)], stride=2)).groups
    assert isinstance(group.slots, torch.Tensor)


def test_long_rows_stand_alone() -> None:
    plan = plan_attention(make_rows([(IN_PLACE, 1), (IN_PLACE, 1), (0, 3 * BLOCK)]))
    assert [g.rows for g in plan.groups] == [1, 1, 1]
    assert plan.scratch_keys == 0
    blocks = plan.groups[-1].blocks
    assert [b.keys for b in blocks] == [BLOCK, 2 * BLOCK, 3 * BLOCK]
    assert [b.causal for b in blocks] == [True, False, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from([1, 1, 2, 5, 17, 200])), min_size=1,
                max_size=20), st.integers(1, 2), st.sampled_from([0, 0, 1, 7, 40, 130, 499]))
def test_every_token_sees_its_own_keys(sizes: list[tuple[int, int]], stride: int,
                                       window: int) -> None:
    """Undo the plan: each token's visible slots are the row's slots up to its position, or as
    many of them as the window holds."""
    rows = make_rows(sizes, stride)
    plan = plan_attention(rows, window)
    same_order = plan_attention(rows).order
    assert (plan.order is None) == (same_order is None)
    assert plan.order is None or plan.order.tolist() == same_order.tolist()
    total = sum(r.n for r in rows)
    order = np.arange(total) if plan.order is None else plan.order
    assert sorted(order.tolist()) == list(range(total))
    expected = {r.start + i: r.context[:len(r.context) - r.n + i + 1][-window:].tolist()
                for r in rows for i in range(r.n)}
    covered = 0
    for group in plan.groups:
        slots = (np.arange(group.slots.start, group.slots.stop)
                 if isinstance(group.slots, slice) else group.slots.numpy())
        table = slots.reshape(group.rows, group.keys)
        for block in group.blocks:
            assert block.start == covered
            covered = block.stop
            n = (block.stop - block.start) // group.rows
            width = block.keys - block.first
            shape = (group.rows, 1, n, width)
            assert not window or width <= window + n - 1
            if block.causal:
                assert n == width
                seen = torch.ones(n, n).tril().bool().expand(shape)
            elif block.mask is None:
                seen = torch.ones(shape).bool()
            else:
                seen = (block.mask == 0).expand(shape)
            for r in range(group.rows):
                for i in range(n):
                    token = int(order[block.start + r * n + i])
                    visible = table[r, block.first:block.keys][seen[r, 0, i].numpy()]
                    assert visible.tolist() == expected[token]
    assert covered == total
