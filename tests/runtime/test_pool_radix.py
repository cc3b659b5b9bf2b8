from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.pins import Pin
from sglc.runtime.pool import SlotPool
from sglc.runtime.radix import Node, RadixTree, common_prefix

ids = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@given(st.lists(st.integers(1, 7), max_size=20), st.randoms())
@settings(max_examples=30, deadline=None)
def test_pool_hands_out_each_slot_once(sizes, rng):
    pool = SlotPool(40)
    held: list[np.ndarray] = []
    for size in sizes:
        if size > pool.free:
            held.sort(key=lambda _: rng.random())
            while held and size > pool.free:
                pool.release(held.pop())
        held.append(pool.alloc(size))
        pool.check(np.concatenate(held))
    for slots in held:
        pool.release(slots)
    assert pool.free == pool.total == 40


def test_pool_refuses_misuse():
    pool = SlotPool(4)
    slots = pool.alloc(3)
    with pytest.raises(AssertionError):
        pool.alloc(2)
    pool.release(slots)
    with pytest.raises(AssertionError):
        pool.release(slots)
    with pytest.raises(ValueError):
        SlotPool(0)


@given(st.lists(st.integers(0, 1), max_size=80), st.lists(st.integers(0, 1), max_size=80),
       st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_common_prefix(key, other, start):
    key, other = array("q", key), array("q", other)
    limit = max(0, min(len(key), len(other) - start))
    want = 0
    while want < limit and key[want] == other[start + want]:
        want += 1
    assert common_prefix(key, other, start, limit) == want


class Model:
    """A tree beside what it should hold: prefix -> slot."""

    def __init__(self, total: int, grain: int = 1) -> None:
        self.pool = SlotPool(total)
        self.tree = RadixTree(self.pool, grain)
        self.pins = [Pin((i,)) for i in range(3)]
        self.root = self.tree.new_root()
        self.held: list[tuple[Node, list[int]]] = []

    def whole(self, seq: list[int]) -> int:
        """How much of it the tree can hold."""
        return len(seq) - len(seq) % self.tree.grain

    def slots(self) -> dict[tuple[int, ...], int]:
        out = {}

        def walk(node: Node, prefix: tuple[int, ...]) -> None:
            for token, slot in zip(node.key, node.slots.tolist(), strict=True):
                prefix = (*prefix, token)
                out[prefix] = slot
            for child in node.children.values():
                walk(child, prefix)

        walk(self.root, ())
        return out

    def match(self, seq: list[int]) -> tuple[Node, int, list[int]]:
        self.tree.clock += 1
        node, pos, pieces = self.tree.match(self.root, array("q", seq), 0, len(seq))
        return node, pos, [int(s) for piece in pieces for s in piece]

    def insert(self, seq: list[int]) -> None:
        node, pos, _ = self.match(seq)
        need = len(seq) - pos
        self.tree.lock(node, self.root)
        if need > self.pool.free:
            self.tree.evict(need - self.pool.free)
        if need <= self.pool.free and need:
            end = self.tree.insert(node, array("q", seq), pos, len(seq), self.pool.alloc(need))
            assert pos <= sum(len(n.key) for n in path(end)) == self.whole(seq)
        self.tree.unlock(node)

    def lock(self, seq: list[int]) -> None:
        node, pos, _ = self.match(seq)
        self.tree.lock(node, self.root)
        self.held.append((node, seq[:pos]))

    def check(self) -> None:
        self.accounts()
        known = self.slots()
        assert len(set(known.values())) == len(known)
        for _, prefix in self.held:  # a locked path is never evicted
            assert all(tuple(prefix[:n + 1]) in known for n in range(len(prefix)))

    def accounts(self) -> None:
        self.tree.check()
        slots = [n.slots for n in self.tree.nodes()]
        self.pool.check(np.concatenate(slots) if slots else np.empty(0, np.int64))
        assert self.pool.free + self.tree.cached + self.tree.locked == self.pool.total


def path(node: Node) -> list[Node]:
    out = []
    while node.parent is not None:
        out.append(node)
        node = node.parent
    return out


operations = st.lists(st.one_of(
    st.tuples(st.just("insert"), ids), st.tuples(st.just("lock"), ids),
    st.tuples(st.just("unlock"), st.integers(0, 9)), st.tuples(st.just("evict"),
                                                               st.integers(1, 9)),
    st.tuples(st.just("hold"), st.tuples(ids, st.integers(0, 2))),
    st.tuples(st.just("close"), st.tuples(st.booleans(), st.integers(0, 2))),
    st.tuples(st.just("match"), ids)), max_size=40)


@given(operations, st.sampled_from([12, 200]))
@settings(max_examples=60, deadline=None)
def test_tree_against_a_dictionary(steps, total):
    model = Model(total)
    for name, value in steps:
        before = model.slots()
        if name == "insert":
            model.insert(value)
            if total == 200:
                after = model.slots()
                assert before.items() <= after.items()  # nothing moved: splits keep slots
                _, pos, slots = model.match(value)
                assert pos == len(value)
                assert slots == [after[tuple(value[:n + 1])] for n in range(pos)]
        elif name == "lock":
            model.lock(value)
        elif name == "unlock" and model.held:
            model.tree.unlock(model.held.pop(value % len(model.held))[0])
        elif name == "evict":
            cached = model.tree.cached
            freed = model.tree.evict(value)
            assert freed == min(value, cached)
            assert model.slots().items() <= before.items()
        elif name == "hold":
            model.tree.hold(model.match(value[0])[0], model.pins[value[1]])
            assert model.slots() == before
        elif name == "close":
            free, at = value
            locked = model.tree.locked
            model.tree.close(model.pins[at], free=free)
            model.pins[at] = Pin((at,))
            assert model.slots() == before if not free else model.slots().items() <= before.items()
            assert model.tree.locked == locked
        elif name == "match":
            _, pos, slots = model.match(value)
            want = 0
            while want < len(value) and tuple(value[:want + 1]) in before:
                want += 1
            assert pos == want
            assert slots == [before[tuple(value[:n + 1])] for n in range(pos)]
            assert model.slots() == before
        model.check()


@given(st.lists(st.tuples(st.sampled_from(["insert", "lock", "unlock", "evict"]), ids,
                          st.integers(1, 9)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_blocks_are_shared_whole(steps):
    model = Model(30, grain=3)
    blocks: set[tuple[int, ...]] = set()  # what was inserted, by their ends
    for name, seq, n in steps:
        if name == "insert":
            model.insert(seq)
            blocks |= {tuple(seq[:k]) for k in range(3, len(seq) + 1, 3)}
        elif name == "lock":
            model.lock(seq)
        elif name == "unlock" and model.held:
            model.tree.unlock(model.held.pop(n % len(model.held))[0])
        elif name == "evict":
            cached = model.tree.cached
            assert min(n, cached) <= model.tree.evict(n) < n + 3
        _, pos, slots = model.match(seq)
        assert pos == len(slots) and pos % 3 == 0
        assert not pos or tuple(seq[:pos]) in blocks
        assert all(model.match(prefix)[1] == len(prefix) for _, prefix in model.held)
        model.accounts()
    model.tree.evict(30)
    assert model.tree.cached == 0


def test_least_recently_used_goes_first():
    model = Model(9)
    for seq in ([1, 1, 1], [2, 2, 2], [3, 3, 3]):
        model.insert(seq)
    model.match([1, 1, 1])
    model.tree.evict(3)
    assert model.match([2, 2, 2])[1] == 0
    model.tree.evict(1)  # part of a leaf is enough
    assert model.match([3, 3, 3])[1] == 2
    assert model.match([1, 1, 1])[1] == 3


def test_hidden_stays_at_the_end_of_a_split_edge():
    model = Model(9)
    model.insert([1, 2, 3, 4])
    model.match([1, 2, 3, 4])[0].hidden = "state"
    upper = model.match([1, 2])[0]
    assert upper.hidden is None
    assert model.match([1, 2, 3, 4])[0].hidden == "state"
    model.tree.evict(1)
    assert model.match([1, 2, 3])[0].hidden is None


def test_spaces_are_apart_and_dropped_when_unlocked():
    pool = SlotPool(20)
    tree = RadixTree(pool)
    one, two = tree.new_root(), tree.new_root()
    seq = array("q", [1, 2, 3, 4])
    for root in (one, two):
        tree.insert(root, seq, 0, 4, pool.alloc(4))
    assert (tree.cached, pool.free) == (8, 12)
    node, pos, _ = tree.match(one, seq, 0, 2)
    tree.lock(node, one)
    tree.drop(one)
    assert pos == 2 and (tree.cached, tree.locked, pool.free) == (4, 2, 14)
    tree.check()
    assert tree.insert(node, seq, 2, 4, pool.alloc(2)) is node  # freed at once
    tree.unlock(node)
    assert (tree.cached, tree.locked, pool.free) == (4, 0, 16)
    tree.drop(two)
    tree.check()
    assert pool.free == 20 and not tree.roots


def test_failed_step_leaves_nothing():
    pool = SlotPool(20)
    tree = RadixTree(pool)
    root = tree.new_root()
    old = tree.extend(root, array("q", [1, 2]), pool.alloc(2), 1, 0)
    new = tree.extend(old, array("q", [3, 4, 5]), pool.alloc(3), 2, 0)
    half, pos, _ = tree.match(root, array("q", [1, 2, 3]), 0, 3)
    assert (half.step, half.flat, new.flat, pos) == (2, 0, 1, 3)
    tree.unlock(new)
    tree.remove_steps({2})
    tree.check()
    assert (pool.free, tree.cached) == (18, 2)
