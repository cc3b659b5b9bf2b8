"""Pins: KV that a plan will read again.

A pin covers what its requests leave in the cache.  While it is open this KV is *held*: it is
evicted after everything else, and, among what is held, in the order of the plan, what is read
last first.  Requests do not start on memory that is held, but for those of the first open pin,
which take it from the later ones.  A pin does not lock: whoever is first in the plan gets memory
in the end, and what was evicted is computed again.

This module knows the tree's nodes; it knows no requests and no scheduler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglc.runtime.radix import Node

Rank = tuple[int, ...]


class Pin:
    """One thing that a plan wants to keep: a prefix with many readers, or a whole instance.

    rank: its place in the plan, compared with the priorities of requests.  uses: it ends by
    itself when this many requests that name it have ended; None: when it is told to.  tokens:
    how much KV it is expected to cover in the end; that much is kept free for it from its first
    request on (`promise` is what is left of that).  peak: how much the work that it stands for
    needs at once, what it does not cover included; there must be as much room when it starts.
    """

    __slots__ = ("_spent", "closed", "nodes", "opened", "peak", "promise", "rank", "tokens",
                 "uses")

    def __init__(self, rank: Rank = (), uses: int | None = None, tokens: int = 0,
                 peak: int = 0) -> None:
        self.rank = rank
        self.uses = uses
        self.tokens = tokens
        self.peak = max(peak, tokens)
        self.promise = 0
        self.opened = False
        self.closed = False
        self.nodes: dict[Node, None] = {}  # the deepest nodes that it covers
        self._spent = 0

    def spend(self, tokens: int) -> None:
        """A request of it takes so many, which opens it, or gives them back (negative)."""
        self.opened = True
        self._spent += tokens
        self.promise = max(0, self.tokens - self._spent) if not self.closed else 0


def hold(node: Node, pin: Pin, changed: Callable[[Node, int], None]) -> None:
    """Hold the path to `node`.  `changed`: told of every node on it, and +1."""
    if pin.closed or node in pin.nodes or node.parent is None:
        return
    pin.nodes[node] = None
    if node.pins is None:
        node.pins = []
    node.pins.append(pin)
    _walk(node, 1, changed)


def close(pin: Pin, changed: Callable[[Node, int], None]) -> list[Node]:
    """End a pin; returns the nodes where it ended.  `changed`: as in `hold`, with -1."""
    pin.closed = True
    pin.promise = 0
    nodes = list(pin.nodes)
    pin.nodes.clear()
    for node in nodes:
        assert node.pins is not None
        node.pins.remove(pin)
        _walk(node, -1, changed)
    return nodes


def climb(node: Node, changed: Callable[[Node, int], None]) -> None:
    """Before `node` goes: its pins end at its parent."""
    parent = node.parent
    assert parent is not None
    for pin in node.pins or ():
        del pin.nodes[node]
        if parent.parent is None:
            continue
        if parent in pin.nodes:  # it was held twice by this pin
            _walk(parent, -1, changed)
            continue
        pin.nodes[parent] = None
        if parent.pins is None:
            parent.pins = []
        parent.pins.append(pin)
    node.pins = None


def _walk(node: Node, step: int, changed: Callable[[Node, int], None]) -> None:
    at: Node | None = node
    while at is not None and at.parent is not None:
        at.held += step
        changed(at, step)
        at = at.parent
