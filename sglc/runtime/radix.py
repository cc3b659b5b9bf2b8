"""The radix tree over token ids: which prefixes have KV in the pool, and in which slots.

A node holds the ids of an edge, their slots, and possibly the model's final hidden state after
its last token.  Sequences lock the path they read; what nobody locks is a cache, given back
leaf by leaf, least recently used first.  Every sharing space has a root of its own.

The tree knows nothing of requests, models or steps; `step` and `flat` on a node are the
scheduler's notes on who computes it (the step that wrote it, and where in that step's batch).
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from sglc.runtime.pool import SlotPool

_NO_KEY = array("q")
_NO_SLOTS = np.empty(0, dtype=np.int64)


class Node:
    """One edge of the tree and the point where it ends."""

    __slots__ = ("children", "dropped", "flat", "hidden", "key", "last_used", "locks", "parent",
                 "root", "slots", "step")

    def __init__(self, parent: Node | None, key: array[int], slots: np.ndarray) -> None:
        self.parent = parent  # None: a root, or removed from the tree
        self.root: Node = self if parent is None else parent.root
        self.key = key
        self.slots = slots
        self.children: dict[int, Node] = {}
        self.locks = 0
        self.last_used = 0
        self.hidden: Any = None
        self.step = -1
        self.flat = 0
        self.dropped = False  # roots only: the space is gone, what is unlocked goes at once


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

    `cached` counts tokens in unlocked nodes, `locked` tokens in locked ones; slots that running
    sequences hold outside the tree are not counted here.
    """

    def __init__(self, pool: SlotPool) -> None:
        self.pool = pool
        self.cached = 0
        self.locked = 0
        self.clock = 0  # advanced by the scheduler; the unit of `last_used`
        self.roots: dict[Node, None] = {}
        self._leaves: set[Node] = set()  # unlocked, childless: what `evict` may take
        self._queue: list[tuple[int, int, Node]] = []  # by last use; entries may be out of date
        self._serial = 0

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

    def match(self, node: Node, ids: array[int], pos: int, end: int
              ) -> tuple[Node, int, list[np.ndarray]]:
        """Walk down from `node`, which ends at `pos`, along `ids[pos:end]`.

        Returns the node where the longest known prefix ends (split off if it ended inside an
        edge), its position, and the slots passed, edge by edge.
        """
        pieces: list[np.ndarray] = []
        clock = self.clock
        while pos < end:
            child = node.children.get(ids[pos])
            if child is None:
                break
            key = child.key
            n = len(key)
            if n > end - pos or ids[pos:pos + n] != key:
                n = common_prefix(key, ids, pos, min(n, end - pos))
                child = self._split(child, n)
            child.last_used = clock
            pieces.append(child.slots)
            pos += n
            node = child
        return node, pos, pieces

    def extend(self, node: Node, key: array[int], slots: np.ndarray, step: int, flat: int) -> Node:
        """Add a locked child (one lock) for ids that `match` found missing below `node`."""
        child = Node(node, key, slots)
        child.locks = 1
        child.last_used = self.clock
        child.step = step
        child.flat = flat
        node.children[key[0]] = child
        self._leaves.discard(node)
        self.locked += len(slots)
        if node.dropped:
            self.roots[node] = None  # again: a late sequence of a dropped space
        return child

    def insert(self, node: Node, ids: array[int], pos: int, end: int, slots: np.ndarray) -> Node:
        """Give the tree the slots of `ids[pos:end]` below `node`; returns the node at `end`.

        Slots of what is known already are freed; in a dropped space, all are.
        """
        if node.root.dropped:
            self.pool.release(slots)
            return node
        node, known, _ = self.match(node, ids, pos, end)
        self.pool.release(slots[:known - pos])
        if known == end:
            return node
        child = Node(node, ids[known:end], slots[known - pos:])
        child.last_used = self.clock
        node.children[ids[known]] = child
        self._leaves.discard(node)
        self.cached += end - known
        self._add_leaf(child)
        return child

    # -- locks -------------------------------------------------------------------------------

    def lock(self, node: Node, above: Node) -> None:
        """Lock the path from `node` up to its ancestor `above`, that one not included."""
        while node is not above:
            if not node.locks:
                n = len(node.slots)
                self.cached -= n
                self.locked += n
                self._leaves.discard(node)
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
                node.last_used = self.clock
                if not node.children:
                    if node.root.dropped:
                        self._remove(node)
                    else:
                        self._add_leaf(node)
            node, parent = parent, parent.parent
        if node.dropped and not node.children:
            self.roots.pop(node, None)

    # -- giving back -------------------------------------------------------------------------

    def evict(self, need: int) -> int:
        """Free up to `need` slots of unlocked leaves, least recently used first, exactly as
        many as asked for where there are as many; returns how many."""
        freed = 0
        queue = self._queue
        while freed < need and self._leaves:
            used, _, node = heapq.heappop(queue)
            if node not in self._leaves:
                continue
            if used != node.last_used:
                self._push(node)
                continue
            n = len(node.slots)
            if n <= need - freed:
                freed += n
                parent = node.parent
                self._remove(node)
                if parent is not None and parent.parent is not None and not parent.children \
                        and not parent.locks:
                    self._add_leaf(parent)
            else:  # the tail of the edge is enough
                keep = n - (need - freed)
                self.pool.release(node.slots[keep:])
                node.slots = node.slots[:keep]
                node.key = node.key[:keep]
                node.hidden = None
                self.cached -= n - keep
                freed = need
                self._push(node)
        return freed

    def remove_step(self, step: int) -> None:
        """Remove every node written by this step; none may be locked any more."""
        for root in list(self.roots):
            for node in list(self._walk(root)):
                if node.step == step:
                    parent = node.parent
                    self._remove(node)
                    if parent is not None and parent.parent is not None and not parent.locks \
                            and not parent.children:
                        self._add_leaf(parent)

    # -- inspection --------------------------------------------------------------------------

    def nodes(self) -> Iterator[Node]:
        """All nodes but the roots, children before parents."""
        for root in self.roots:
            yield from self._walk(root)

    def check(self) -> None:
        """Assert the tree's invariants: counts, locks, leaves and links."""
        cached = locked = 0
        leaves = set()
        for node in self.nodes():
            parent = node.parent
            assert parent is not None and parent.children[node.key[0]] is node
            assert len(node.key) == len(node.slots) > 0
            assert node.root is parent.root
            assert node.locks >= max((c.locks for c in node.children.values()), default=0)
            if node.locks:
                locked += len(node.slots)
            else:
                cached += len(node.slots)
                if not node.children:
                    leaves.add(node)
        assert (cached, locked) == (self.cached, self.locked)
        assert leaves == self._leaves
        assert self._leaves <= {entry[2] for entry in self._queue}

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
        upper.last_used = node.last_used
        upper.step = node.step
        upper.flat = node.flat
        parent.children[upper.key[0]] = upper
        node.parent = upper
        node.key = node.key[k:]
        node.slots = node.slots[k:]
        node.flat += k
        upper.children[node.key[0]] = node
        return upper

    def _remove(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None and not node.locks and not node.children
        del parent.children[node.key[0]]
        node.parent = None
        self._leaves.discard(node)
        self.cached -= len(node.slots)
        self.pool.release(node.slots)

    def _add_leaf(self, node: Node) -> None:
        if node not in self._leaves:
            self._leaves.add(node)
            self._push(node)
            if len(self._queue) > 2 * len(self._leaves) + 64:
                live = {entry[2]: entry for entry in self._queue if entry[2] in self._leaves}
                self._queue = list(live.values())
                heapq.heapify(self._queue)

    def _push(self, node: Node) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (node.last_used, self._serial, node))
