"""Plans of batches: places, groups, windows; and what they promise."""

from __future__ import annotations

import gc
import random
import time
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglc.plan.order import nested_order
from sglc.plan.planner import MIN_SHARED, BatchPlan, Group, Learned, Need, Window

long_ids = st.lists(st.integers(0, 1), max_size=4).map(
    lambda parts: array("q", [7 * p + k for p in parts for k in range(5)]))
batches = st.lists(st.lists(long_ids, max_size=3), max_size=8)


@given(batches)
def test_every_instance_has_a_place(prompts: list[list[array[int]]]) -> None:
    plan = BatchPlan(prompts)
    assert sorted(plan.order) == sorted(plan.places) == list(range(len(prompts)))
    assert [plan.places[i] for i in plan.order] == list(range(len(prompts)))


@given(st.lists(long_ids, max_size=8))
def test_with_a_prompt_each_it_is_the_nested_order(prompts: list[array[int]]) -> None:
    assert BatchPlan([[ids] for ids in prompts]).order == nested_order(prompts)


@given(batches)
def test_groups_are_what_instances_share(prompts: list[list[array[int]]]) -> None:
    plan = BatchPlan(prompts)
    for known in prompts:
        for ids in known:
            group = plan.group_of(ids)
            while group is not None:
                prefix = ids[:group.length]
                begin = [(i, p) for i, ps in enumerate(prompts) for p in ps
                         if p[:group.length] == prefix]
                assert group.uses == len(begin)
                assert len({i for i, _ in begin}) > 1
                assert group.place == min([plan.places[i] for i, _ in begin])
                assert group.own >= MIN_SHARED
                group = group.parent
    for i, known in enumerate(prompts):  # nothing that is worth it is missed
        for ids in known:
            shared = max([common(ids, p) for j, ps in enumerate(prompts) if j != i for p in ps],
                         default=0)
            group = plan.group_of(ids)
            assert shared - (group.length if group is not None else 0) < MIN_SHARED


def common(a: array[int], b: array[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def test_prefixes_that_all_read_later() -> None:
    first = [[array("q", [1] * 20 + [i])] for i in range(3)]
    later = array("q", [2] * 30)
    plan = BatchPlan(first, [later, array("q", [1] * 15)])
    group, = plan.everywhere
    assert (group.length, group.uses, group.parent) == (30, 3, None)
    assert plan.group_of(later + array("q", [9])) is group
    known = plan.group_of(first[0][0])
    assert known is not None and known.length == 20 and known is not group
    assert plan.group_of(array("q", [3] * 30)) is None


def test_plans_ten_thousand_instances_in_a_second() -> None:
    draw = random.Random(0)

    def ids(n: int) -> array[int]:
        return array("q", [draw.randrange(50_000) for _ in range(n)])

    head, contexts = ids(800), [ids(150) for _ in range(300)]
    prompts = [[head + contexts[draw.randrange(300)] + ids(30)] for _ in range(10_000)]
    gc.freeze()  # of other tests' objects and threads the time says nothing
    try:
        start = time.thread_time()
        plan = BatchPlan(prompts, [head])
        for known in prompts:
            assert len(plan.groups_of(known)) == 2
        seconds = time.thread_time() - start
    finally:
        gc.unfreeze()
    print(f"10,000 instances planned in {seconds:.2f} s")
    assert len(plan.groups) == 301
    assert seconds < 1


def test_nested_prefixes_do_not_cost_their_square() -> None:
    trunk = array("q", range(40_000))
    start = time.process_time()
    plan = BatchPlan([[trunk[:20 * i]] for i in range(1, 2000)])
    assert sorted(plan.order) == list(range(1999))
    assert time.process_time() - start < 5


def test_window() -> None:
    shared = Group(40, None, 0, 2)
    window = Window(100, 1)
    assert window.enter(50, [shared])  # 90
    assert not window.enter(20, [])
    assert window.enter(10, [shared])  # what is shared counts once
    assert window.leave(50, [shared]) == []
    assert window.leave(10, [shared]) == [shared]
    assert window.used == window.started == 0
    assert window.enter(1000, [])  # one always may
    unused = Group(10, None, 0, 1)
    assert window.skip([unused]) == [unused]  # it never was open
    assert window.used == 1000


def test_charge() -> None:
    assert Need(10, 30, 50).charge == 30
    assert Need(0, 30, 30).charge < 30
    assert Need(0, 0, 0).charge == 1


@given(st.lists(st.integers(0, 100), min_size=4, max_size=80))
def test_learned_lengths(sizes: list[int]) -> None:
    learned = Learned(1000, 0.6)
    for size in sizes[:3]:
        learned.add(size)
    assert learned.expected == 1000
    for size in sizes[3:]:
        learned.add(size)
    last = sorted(sizes[-64:])
    assert learned.expected == last[int(0.6 * len(last))]
    assert learned.expected >= last[len(last) // 2]


@pytest.mark.parametrize("size", [5, 7])
def test_learned_follows(size: int) -> None:
    learned = Learned(1, 0.5)
    for _ in range(64):
        learned.add(size + 1)
    for _ in range(64):
        learned.add(size)
    assert learned.expected == size
