"""Plans for batches: in which order instances go, which prefixes they share, and how many may be
under way in a given memory.

The order is a walk through the prefix tree of all prompts that are known (`order.py`).  A prefix
that several instances read is a *group*: its KV is kept once, from its first reader to its last.
What an instance needs beyond its groups is reserved for it.

Where everything fits, calls go by their critical path, whatever their instance (op-major): that
fills steps best, and nothing has to be computed twice.  Where it does not, they go instance by
instance (query-major), and a window bounds how many instances hold KV.

Everything here is numbers and ids: no engine, no program, no text.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sglc.plan.order import PrefixNode, prefix_tree, walk

MIN_SHARED = 8  # tokens worth keeping for others
MAX_DEPTH = 64  # of groups in groups
LAST, FEW = 64, 4  # sizes that are remembered, and how many make a quantile


@dataclass(frozen=True, slots=True)
class Need:
    """KV tokens of one instance, without those that others share.

    kept: what its later calls read again.  peak: that, and the largest call beside it: with as
    much it can go on without computing anything twice.  total: all there ever is.
    """

    kept: int
    peak: int
    total: int

    @property
    def charge(self) -> int:
        """What it counts for in the window.  One that keeps nothing between calls leaves
        memory to the scheduler, and is only to be there when there is room."""
        return max(1, self.peak if self.kept else self.peak // 4)


@dataclass(slots=True, eq=False)
class Group:
    """A prefix of several instances, or of several calls of all.

    length: of the whole prefix, in tokens; parent: the group of a shorter one, None if there is
    none; place: the first that needs it; uses: how many prompts begin with it.
    """

    length: int
    parent: Group | None
    place: int
    uses: int

    @property
    def own(self) -> int:
        """Tokens beyond those of the parent."""
        return self.length - (self.parent.length if self.parent is not None else 0)


@dataclass(slots=True, eq=False)
class _Branch:
    """A node of the tree of groups: ids up to `end`, found by the id at its beginning."""

    ids: array[int]
    end: int
    group: Group | None
    children: dict[int, _Branch] = field(default_factory=dict)


class BatchPlan:
    """The plan of a batch: a place for every instance, and the groups.

    prompts: for each instance the ids of the prompts that are known.  common: prefixes that every
    instance reads at some time.  Time is that of sorting.
    """

    def __init__(self, prompts: Sequence[Sequence[array[int]]],
                 common: Sequence[array[int]] = ()) -> None:
        self.count = len(prompts)
        owners: list[int] = []
        rows: list[array[int]] = []
        for i, known in enumerate(prompts):
            for ids in known if known else (array("q"),):
                owners.append(i)
                rows.append(ids)
        root = prefix_tree(rows)
        self.order: list[int] = []
        seen = bytearray(self.count)
        for leaf in walk(root):
            owner = owners[leaf]
            if not seen[owner]:
                seen[owner] = 1
                self.order.append(owner)
        self.places = [0] * self.count
        for place, i in enumerate(self.order):
            self.places[i] = place
        self.groups: list[Group] = []
        self._root = _Branch(array("q"), 0, None)
        self._grow(root, rows, owners)
        self.everywhere: list[Group] = []  # those of all instances that no known prompt shows
        for ids in common:
            self._add(ids)

    def _grow(self, root: PrefixNode, rows: Sequence[array[int]], owners: Sequence[int]) -> None:
        """Make groups of the nodes that several instances are below of."""
        below = _below(root, owners, self.places)
        stack: list[tuple[PrefixNode, _Branch, int]] = [(root, self._root, 0)]
        while stack:
            node, above, depth = stack.pop()
            for child in node.branches:
                single, uses, place = below[child]
                if single or not child.depth:
                    continue
                group = above.group
                if child.depth - (group.length if group is not None else 0) >= MIN_SHARED:
                    group = Group(child.depth, group, place, uses)
                    self.groups.append(group)
                ids = rows[child.first]
                branch = _Branch(ids, child.depth, group)
                above.children[ids[above.end]] = branch
                if depth < MAX_DEPTH:
                    stack.append((child, branch, depth + 1))

    def _add(self, ids: array[int]) -> None:
        """Make a group of a prefix of all instances, unless it is one."""
        at, end = self._find(ids)
        if end == len(ids) or ids[end] in at.children:
            return  # known, or part of what is
        group = at.group
        if len(ids) - (group.length if group is not None else 0) < MIN_SHARED:
            return
        group = Group(len(ids), group, 0, self.count)
        self.groups.append(group)
        self.everywhere.append(group)
        at.children[ids[end]] = _Branch(ids, len(ids), group)

    def _find(self, ids: array[int]) -> tuple[_Branch, int]:
        at, end = self._root, 0
        while end < len(ids):
            child = at.children.get(ids[end])
            if child is None or ids[end:child.end] != child.ids[end:child.end]:
                break
            at, end = child, child.end
        return at, end

    def group_of(self, ids: array[int]) -> Group | None:
        """The longest group that a prompt begins with."""
        return self._find(ids)[0].group

    def groups_of(self, prompts: Sequence[array[int]]) -> list[Group]:
        """All groups of prompts, once for each prompt."""
        out = []
        for ids in prompts:
            group = self.group_of(ids)
            while group is not None:
                out.append(group)
                group = group.parent
        return out


def _below(root: PrefixNode, owners: Sequence[int], places: Sequence[int]
           ) -> dict[PrefixNode, tuple[bool, int, int]]:
    """For every node: whether one instance owns all below it, how many prompts those are, and
    the first place."""
    nodes = [root]
    for node in nodes:  # grows while it is read
        nodes.extend(node.branches)
    found: dict[PrefixNode, tuple[bool, int, int]] = {}
    for node in reversed(nodes):
        if not node.branches:
            if node is not root:
                found[node] = (True, 1, places[owners[node.first]])
            continue
        parts = [found[child] for child in node.branches]
        place = parts[0][2]
        found[node] = (all(single and p == place for single, _, p in parts),
                       sum([uses for _, uses, _ in parts]), min([p for _, _, p in parts]))
    return found


class Window:
    """How much of a batch is under way.

    An instance may start while what all that have started count for, groups once, is at most
    `ahead` times the memory (KV tokens); one may always.  More than once the memory, because not
    all are at their peak together.
    """

    def __init__(self, memory: int, ahead: float) -> None:
        self.memory = memory
        self.ahead = ahead
        self.used = 0
        self.started = 0
        self._open: dict[Group, None] = {}

    def enter(self, charge: int, groups: Sequence[Group]) -> bool:
        """Count an instance as started, if it may."""
        opening = {g: None for g in groups if g not in self._open}
        tokens = charge + sum([g.own for g in opening])
        if self.started and self.used + tokens > self.ahead * self.memory:
            return False
        self._open.update(opening)
        self.started += 1
        self.used += tokens
        return True

    def leave(self, charge: int, groups: Sequence[Group]) -> list[Group]:
        """It is over; returns the groups that nobody is left for.  `groups`: as often as it has
        prompts in them."""
        self.started -= 1
        self.used -= charge
        return self.skip(groups)

    def skip(self, groups: Sequence[Group]) -> list[Group]:
        """The same for one that never started."""
        closed = []
        for group in groups:
            group.uses -= 1
            if not group.uses:
                closed.append(group)
                if group in self._open:
                    del self._open[group]
                    self.used -= group.own
        return closed


class Learned:
    """A size that differs from run to run: a quantile of those seen last, a guess before there
    are a few."""

    def __init__(self, guess: int, quantile: float) -> None:
        self.expected = guess
        self.quantile = quantile
        self._last: deque[int] = deque(maxlen=LAST)

    def add(self, size: int) -> None:
        """Note one that was seen."""
        self._last.append(size)
        if len(self._last) >= FEW:
            at = int(self.quantile * len(self._last))
            self.expected = sorted(self._last)[at]
