"""The radix tree over token ids: which prefixes have KV in the pool, and in which slots.

A node holds the ids of an edge, their slots, and possibly the model's final hidden state after
its last token.  Sequences lock the path they read; what nobody locks is a cache, given back
leaf by leaf (`leaves.py`).  Every sharing space has a root of its own.  The tree's *grain* is
the number of tokens that are shared or not as one: 1, or a block.

The tree knows nothing of requests, models or steps; `step`, `until` and `flat` on a node are the
scheduler's notes on who computes it (the step that writes it, the last step that may, and where
in the batch of `step`).
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Iterator
from typing import Any

import numpy as np

from sglc.runtime import pins
from sglc.runtime.leaves import Leaves
from sglc.runtime.pins import Pin, Rank
from sglc.runtime.pool import SlotPool

_NO_KEY = array("q")
_NO_SLOTS = np.empty(0, dtype=np.int64)


class Node:
    """One edge of the tree and the point where it ends."""

    __slots__ = ("children", "dropped", "flat", "held", "hidden", "key", "last_used", "locks",
                 "parent", "pins", "root", "slots", "step", "until")

    def __init__(self, parent: Node | None, key: array[int], slots: np.ndarray) -> None:
        self.parent = parent  # None: a root, or removed from the tree
        self.root: Node = self if parent is None else parent.root
        self.key = key
        self.slots = slots
        self.children: dict[Hashable, Node] = {}  # by their first id, or block of ids
        self.locks = 0
        self.held = 0  # pins that cover it
        self.pins: list[Pin] | None = None  # those that end here
        self.last_used = 0
        self.hidden: Any = None
        self.step = self.until = -1
        self.flat = 0
        self.dropped = False  # roots only: the space is gone, what is unlocked goes at once

    @property
    def rank(self) -> Rank:
        """The first place in the plan that needs what ends here."""
        return min(pin.rank for pin in self.pins or ())


def common_prefix(key: array[int], ids: array[int], start: int, limit: int) -> int:
    """How many of the first `limit` ids of `key` equal those of `ids` from `start`.

    Galloping: slices are compared at C speed, so the cost is a few slices, not a Python loop.
    """
    low, size = 0, 8
    while low < limit:
        high = min(low + size, limit)
        if key[low:high] != ids[start + low:start + high]:
            while high - low > 1:  # they differ somewhere in low .. high - 1
                middle = (low + high) // 2
                if key[low:middle] == ids[start + low:start + middle]:
                    low = middle
                else:
                    high = middle
            return low
        low, size = high, size * 4
    return low


class RadixTree:
    """Prefix trees over one pool.

    `cached` counts tokens in unlocked nodes, `held` those of them that pins cover, `locked`
    tokens in locked nodes; slots that running sequences hold outside the tree are not counted
    here.  Keys are multiples of `grain` tokens.
    """

    def __init__(self, pool: SlotPool, grain: int = 1) -> None:
        self.pool = pool
        self.grain = grain
        self.cached = 0
        self.held = 0
        self.locked = 0
        self.clock = 0  # advanced by the scheduler; the unit of `last_used`
        self.roots: dict[Node, None] = {}
        self.leaves = Leaves()  # unlocked, childless: what `evict` may take

    # -- spaces ------------------------------------------------------------------------------

    def new_root(self) -> Node:
        """The empty prefix of a new sharing space."""
        root = Node(None, _NO_KEY, _NO_SLOTS)
        self.roots[root] = None
        return root

    def drop(self, root: Node) -> None:
        """End a space: unlocked KV is freed now, locked KV as soon as it is unlocked."""
        root.dropped = True
        for node in list(self._walk(root)):
            if not node.locks:
                self._remove(node)
        if not root.children:
            self.roots.pop(root, None)

    # -- reading and growing -----------------------------------------------------------------

    def _first(self, ids: array[int], pos: int) -> Hashable:
        """What a child is found by: its first id, or block of ids."""
        return ids[pos] if self.grain == 1 else ids[pos:pos + self.grain].tobytes()

    def match(self, node: Node, ids: array[int], pos: int, end: int
              ) -> tuple[Node, int, list[np.ndarray]]:
        """Walk down from `node`, which ends at `pos`, along `ids[pos:end]`.

        Returns the node where the longest known prefix ends (split off if it ended inside an
        edge), its position, and the slots passed, edge by edge.
        """
        pieces: list[np.ndarray] = []
        clock, grain = self.clock, self.grain
        while end - pos >= grain:
            child = node.children.get(ids[pos] if grain == 1 else self._first(ids, pos))
            if child is None:
                break
            key = child.key
            n = len(key)
            if n > end - pos or ids[pos:pos + n] != key:
                n = common_prefix(key, ids, pos, min(n, end - pos))
                child = self._split(child, n - n % grain)
                n = len(child.key)
            child.last_used = clock
            pieces.append(child.slots)
            pos += n
            node = child
        return node, pos, pieces

    def extend(self, node: Node, key: array[int], slots: np.ndarray, step: int = -1, flat: int = 0,
               *, until: int = -1) -> Node:
        """Add a locked child (one lock) for ids that `match` found missing below `node`."""
        child = Node(node, key, slots)
        child.locks = 1
        child.last_used = self.clock
        child.step = step
        child.until = until
        child.flat = flat
        node.children[self._first(key, 0)] = child
        self.leaves.discard(node)
        self.locked += len(slots)
        if node.dropped:
            self.roots[node] = None  # again: a late sequence of a dropped space
        return child

    def knows(self, node: Node, ids: array[int], pos: int) -> bool:
        """Whether some child of `node`, which ends at `pos`, starts as `ids` goes on."""
        return self._first(ids, pos) in node.children

    def insert(self, node: Node, ids: array[int], pos: int, end: int, slots: np.ndarray,
               until: int = -1) -> Node:
        """Give the tree the slots of `ids[pos:end]` below `node`; returns the node at `end`, or
        at the last whole block.

        Slots of what is known already and of what is no whole block are freed; in a dropped
        space, all are.
        """
        if node.root.dropped:
            self.pool.release(slots)
            return node
        if extra := (end - pos) % self.grain:
            end -= extra
            self.pool.release(slots[end - pos:])
            slots = slots[:end - pos]
        node, known, _ = self.match(node, ids, pos, end)
        self.pool.release(slots[:known - pos])
        if known == end:
            return node
        child = Node(node, ids[known:end], slots[known - pos:])
        child.until = until
        child.last_used = self.clock
        node.children[self._first(child.key, 0)] = child
        self.leaves.discard(node)
        self.cached += end - known
        self.leaves.add(child)
        return child

    # -- locks -------------------------------------------------------------------------------

    def lock(self, node: Node, above: Node) -> None:
        """Lock the path from `node` up to its ancestor `above`, that one not included."""
        while node is not above:
            if not node.locks:
                n = len(node.slots)
                self.cached -= n
                self.locked += n
                if node.held:
                    self.held -= n
                self.leaves.discard(node)
            node.locks += 1
            node = node.parent  # type: ignore[assignment]

    def unlock(self, node: Node) -> None:
        """Take one lock off the path from `node` to the root."""
        parent = node.parent
        while parent is not None:
            node.locks -= 1
            if not node.locks:
                n = len(node.slots)
                self.locked -= n
                self.cached += n
                if node.held:
                    self.held += n
                node.last_used = self.clock
                if not node.children:
                    if node.root.dropped:
                        self._remove(node)
                    else:
                        self.leaves.add(node)
            node, parent = parent, parent.parent
        if node.dropped and not node.children:
            self.roots.pop(node, None)

    # -- pins --------------------------------------------------------------------------------

    def hold(self, node: Node, pin: Pin) -> None:
        """Let an open pin cover the path to `node`."""
        pins.hold(node, pin, self._held)

    def close(self, pin: Pin, *, free: bool = False) -> None:
        """End a pin.  What nobody else holds goes first from now on; with `free`, at once if
        nobody reads it."""
        for node in pins.close(pin, self._held):
            at: Node | None = node
            while at is not None and at.parent is not None and not at.held:
                parent = at.parent
                if len(at.children) > (at is not node) or (at.locks and free):
                    break
                at.last_used = 0
                if free and not at.children:
                    self._remove(at)
                    self._bare(parent)
                elif at in self.leaves:
                    self.leaves.discard(at)  # its place in the queue is out of date
                    self.leaves.add(at)
                at = parent

    def _held(self, node: Node, step: int) -> None:
        """Note that a pin came to, or left, a node."""
        if node.held == (step > 0):  # 1 for the first that came, 0 for the last that left
            if not node.locks:
                self.held += step * len(node.slots)
            if node in self.leaves:
                self.leaves.add(node)

    def held_before(self, rank: Rank) -> int:
        """Held tokens that a request of this rank is not to have (at most: `held`)."""
        spare = 0
        for leaf in self.leaves.held:
            node: Node | None = leaf
            while node is not None and node.parent is not None and not node.locks \
                    and len(node.children) <= (node is not leaf) \
                    and all(pin.rank > rank for pin in node.pins or ()):
                spare += len(node.slots)
                node = node.parent
        return self.held - spare

    # -- giving back -------------------------------------------------------------------------

    def evict(self, need: int) -> int:
        """Free up to `need` slots of unlocked leaves, in the order of `leaves.py`, exactly as
        many as asked for (blocks: or a little more) where there are as many; returns how many."""
        freed = 0
        while freed < need:
            node = self.leaves.next()
            if node is None:
                break
            n = len(node.slots)
            keep = n - (need - freed)
            keep -= keep % self.grain
            if keep <= 0:
                freed += n
                parent = node.parent
                self._remove(node)
                if parent is not None:
                    self._bare(parent)
            else:  # the tail of the edge is enough
                self.pool.release(node.slots[keep:])
                node.slots = node.slots[:keep]
                node.key = node.key[:keep]
                node.hidden = None
                self.cached -= n - keep
                if node.held:
                    self.held -= n - keep
                freed += n - keep
        return freed

    def remove_steps(self, steps: Collection[int]) -> None:
        """Remove every node that one of these steps may have had to write; none may be locked any
        more, nor have children that are to stay."""
        for root in list(self.roots):
            for node in list(self._walk(root)):
                if node.step in steps or node.until in steps:
                    parent = node.parent
                    self._remove(node)
                    if parent is not None:
                        self._bare(parent)

    # -- inspection --------------------------------------------------------------------------

    def nodes(self) -> Iterator[Node]:
        """All nodes but the roots, children before parents."""
        for root in self.roots:
            yield from self._walk(root)

    def check(self) -> None:
        """Assert the tree's invariants: counts, locks, pins, leaves and links."""
        cached = locked = held = 0
        leaves = set()
        covers: dict[Node, int] = {}
        for node in self.nodes():
            parent = node.parent
            assert parent is not None and parent.children[self._first(node.key, 0)] is node
            assert len(node.key) == len(node.slots) > 0 == len(node.key) % self.grain
            assert node.root is parent.root
            assert node.locks >= max((c.locks for c in node.children.values()), default=0)
            assert all(node in pin.nodes and not pin.closed for pin in node.pins or ())
            covers[node] = covers.get(node, 0) + len(node.pins or ())
            covers[parent] = covers.get(parent, 0) + covers[node]
            assert node.held == covers[node]
            if node.locks:
                locked += len(node.slots)
            else:
                cached += len(node.slots)
                held += len(node.slots) * (node.held > 0)
                if not node.children:
                    leaves.add(node)
        assert (cached, locked, held) == (self.cached, self.locked, self.held)
        assert leaves == self.leaves.plain | self.leaves.held
        self.leaves.check()

    # -- inside ------------------------------------------------------------------------------

    def _walk(self, root: Node) -> Iterator[Node]:
        order = list(root.children.values())
        for node in order:  # grows while it is read: a breadth-first walk
            order.extend(node.children.values())
        return reversed(order)

    def _split(self, node: Node, k: int) -> Node:
        """Cut the edge after `k` ids; returns the new upper half.  `node` stays the lower
        half: who holds it holds the same end, the same hidden state and the same locks."""
        parent = node.parent
        assert parent is not None
        upper = Node(parent, node.key[:k], node.slots[:k])
        upper.locks = node.locks
        upper.held = node.held
        upper.last_used = node.last_used
        upper.step, upper.until = node.step, node.until
        upper.flat = node.flat
        parent.children[self._first(upper.key, 0)] = upper
        node.parent = upper
        node.key = node.key[k:]
        node.slots = node.slots[k:]
        node.flat += k
        upper.children[self._first(node.key, 0)] = node
        return upper

    def _remove(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None and not node.locks and not node.children
        if node.pins:
            pins.climb(node, self._held)
        del parent.children[self._first(node.key, 0)]
        node.parent = None
        self.leaves.discard(node)
        self.cached -= len(node.slots)
        if node.held:
            self.held -= len(node.slots)
        self.pool.release(node.slots)

    def _bare(self, node: Node) -> None:
        """A child of `node` went: it may be a leaf now."""
        if node.parent is not None and not node.locks and not node.children:
            self.leaves.add(node)
