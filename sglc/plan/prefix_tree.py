"""A prefix tree of sequences that are not all known yet: of ids, and of blocks whose ids, or even
whose length, only a run will tell.

Knows no programs and no tokenizer.  See `cost.py` for what is read off it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field


class Node:
    """A stretch of a path through the tree: ids, or a block under a key.

    expected, most: its length in tokens, as estimated and at most.  read: some sequence needs
    its KV.  written: decoding writes it.  rows: in the prompts of how many rows it is; row: the
    last of them.
    """

    __slots__ = ("children", "expected", "ids", "key", "most", "parent", "read", "row", "rows",
                 "written")

    def __init__(self, parent: Node | None, ids: array[int] | None, key: Hashable,
                 expected: float, most: int) -> None:
        self.parent = parent
        self.ids = ids
        self.key = key
        self.expected = expected
        self.most = most
        self.children: dict[Hashable, Node] = {}
        self.read = self.written = False
        self.row = self.rows = 0

    @property
    def known(self) -> bool:
        """Whether its ids are known, or there are none."""
        return self.ids is not None

    def path(self) -> Iterator[Node]:
        """This node and those above it, but for the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass(frozen=True, slots=True)
class Span:
    """What one request reads and writes: the prompt up to `given`, and behind it, up to `end`,
    what decoding writes."""

    given: Node
    end: Node

    def writes(self) -> Iterator[Node]:
        """The nodes that are written."""
        node = self.end
        while node is not self.given:
            yield node
            assert node.parent is not None
            node = node.parent


@dataclass(slots=True)
class PrefixTree:
    """All sequences of a batch."""

    root: Node = field(default_factory=lambda: Node(None, array("q"), None, 0, 0))

    def extend(self, at: Node, ids: array[int]) -> Node:
        """The place behind `ids`, from `at` on.  Places stay valid whatever is added later."""
        node, start, n = at, 0, len(ids)
        while start < n:
            child = node.children.get(ids[start])
            if child is None:
                leaf = Node(node, ids[start:], None, n - start, n - start)
                node.children[ids[start]] = leaf
                return leaf
            assert child.ids is not None
            same = _common(child.ids, ids, start)
            node = child if same == len(child.ids) else self._split(child, same)
            start += same
        return node

    def block(self, at: Node, key: Hashable, expected: float, most: int) -> Node:
        """The place behind a block of unknown ids; equal keys at one place are one block."""
        name = ("block", key)
        child = at.children.get(name)
        if child is None:
            child = at.children[name] = Node(at, None, key, expected, most)
        return child

    @staticmethod
    def _split(node: Node, length: int) -> Node:
        """A node for the first tokens of `node`, which keeps its end."""
        ids, parent = node.ids, node.parent
        assert ids is not None and parent is not None
        upper = Node(parent, ids[:length], None, length, length)
        parent.children[ids[0]] = upper
        upper.children[ids[length]] = node
        node.parent, node.ids = upper, ids[length:]
        node.expected = node.most = len(node.ids)
        return upper

    def nodes(self) -> Iterator[Node]:
        """All nodes but the root, parents first."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def lengths(self, size: Callable[[Node], float]) -> dict[Node, float]:
        """The length of the path to each node, in a measure of nodes."""
        out: dict[Node, float] = {self.root: 0}
        for node in self.nodes():
            assert node.parent is not None
            out[node] = out[node.parent] + size(node)
        return out


def above(places: Iterable[Node]) -> set[Node]:
    """All nodes on the paths to these places."""
    found: set[Node] = set()
    for place in places:
        for node in place.path():
            if node in found:
                break
            found.add(node)
    return found


def _common(key: array[int], ids: array[int], start: int) -> int:
    """How many of `key`'s ids stand in `ids` from `start` on."""
    n = min(len(key), len(ids) - start)
    if key[:n] == ids[start:start + n]:
        return n
    low, high = 0, n  # equal up to low, different up to high
    while high - low > 1:
        middle = (low + high) // 2
        if key[low:middle] == ids[start + low:start + middle]:
            low = middle
        else:
            high = middle
    return low
