"""In which order the instances of a batch go: those that begin alike are neighbours.

Knows ids only, such as those that the first model call of each instance reads.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from sglc.plan.lower_bound import common_bytes


@dataclass(slots=True, eq=False)
class PrefixNode:
    """What shares its first `depth` ids; `first`: the smallest index in it."""

    depth: int
    first: int
    branches: list[PrefixNode] = field(default_factory=list)

    def add(self, branch: PrefixNode) -> None:
        self.branches.append(branch)
        self.first = min(self.first, branch.first)


def nested_order(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The indices of the prompts, in the order of a walk through their prefix tree.

    The branches of a node are walked in the order in which they first occur, so prompts that
    share nothing stay in their order.  Time is that of sorting the prompts, which is least for
    `array("q")`.
    """
    return walk(prefix_tree(prompts))


def prefix_tree(prompts: Sequence[Sequence[int]]) -> PrefixNode:
    """The prefix tree of prompts, lists or arrays "q"; every one is a leaf."""
    keys = [(ids if isinstance(ids, array) else array("q", ids)).tobytes() for ids in prompts]
    leaves = [PrefixNode(len(prompts[i]), i)
              for i in sorted(range(len(keys)), key=keys.__getitem__)]
    spine = [PrefixNode(0, len(leaves))]
    done: PrefixNode | None = None  # the last subtree, whose place is known when its neighbour is
    before = b""
    for leaf in leaves:
        key = keys[leaf.first]
        if done is not None:
            depth = common_bytes(before, key) // 8
            while spine[-1].depth > depth:
                spine[-1].add(done)
                done = spine.pop()
            if spine[-1].depth < depth:
                spine.append(PrefixNode(depth, done.first))
            spine[-1].add(done)
        done, before = leaf, key
    while done is not None:
        spine[-1].add(done)
        done = spine.pop() if len(spine) > 1 else None
    return spine[0]


def walk(root: PrefixNode) -> list[int]:
    """The indices of the leaves; branches in the order of their smallest ones."""
    out: list[int] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node.branches:
            stack += sorted(node.branches, key=lambda n: -n.first)
        elif node is not root:
            out.append(node.first)
    return out
