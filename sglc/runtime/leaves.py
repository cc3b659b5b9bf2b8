"""Which cached leaf of the radix tree goes next.

Plain leaves go least recently used first.  Held ones (see `pins.py`) go when no plain one is
left, the one that is needed last first.  Nothing is known here of slots, locks or the tree's
shape: the tree says what is a leaf.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglc.runtime.radix import Node


class Leaves:
    """The unlocked, childless nodes of a tree."""

    __slots__ = ("_queue", "_serial", "held", "plain")

    def __init__(self) -> None:
        self.plain: set[Node] = set()
        self.held: set[Node] = set()
        self._queue: list[tuple[int, int, Node]] = []  # plain, by last use; may be out of date
        self._serial = 0

    def __contains__(self, node: object) -> bool:
        return node in self.plain or node in self.held

    def __bool__(self) -> bool:
        return bool(self.plain or self.held)

    def add(self, node: Node) -> None:
        """Take a node in, or note that it came to be held or is not held any more."""
        if node.held:
            self.plain.discard(node)
            self.held.add(node)
            return
        self.held.discard(node)
        if node not in self.plain:
            self.plain.add(node)
            self._push(node)
            if len(self._queue) > 2 * len(self.plain) + 64:
                live = {entry[2]: entry for entry in self._queue if entry[2] in self.plain}
                self._queue = list(live.values())
                heapq.heapify(self._queue)

    def discard(self, node: Node) -> None:
        """Forget a node that is no leaf any more, or is locked."""
        self.plain.discard(node)
        self.held.discard(node)

    def next(self) -> Node | None:
        """The leaf to give back first; None if there is none.  It stays until discarded."""
        queue = self._queue
        while self.plain:
            used, _, node = queue[0]
            if node in self.plain and used == node.last_used:
                return node
            heapq.heappop(queue)
            if node in self.plain:
                self._push(node)
        if self.held:
            return max(self.held, key=lambda node: (node.rank, -node.last_used))
        return None

    def _push(self, node: Node) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (node.last_used, self._serial, node))

    def check(self) -> None:
        """Assert that every plain leaf can be found."""
        assert not self.plain & self.held
        assert self.plain <= {entry[2] for entry in self._queue}
        assert not any(node.held for node in self.plain)
        assert all(node.held and node.pins for node in self.held)
