"""Whether the KV slots of a scheduler add up, for tests and diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sglc.runtime.scheduler import Scheduler


def check_slots(scheduler: Scheduler) -> None:
    """Assert that every slot is accounted for exactly once, and every lock is owned."""
    kv, running = scheduler.kv, scheduler.queues.running
    tree, pool = kv.tree, kv.pool
    tree.check()
    slots = [node.slots for node in tree.nodes()]
    slots += [s.context[s.own:s.pos] for s in running]
    pool.check(np.concatenate(slots) if slots else np.empty(0, dtype=np.int64))
    own = sum(s.pos - s.own for s in running)
    assert pool.free + tree.cached + tree.locked + own == pool.total
    assert kv.in_use == tree.locked + own
    locks: dict[Any, int] = {}
    for seq in running:
        node, end = seq.node, seq.own
        while node.parent is not None:
            locks[node] = locks.get(node, 0) + 1
            end -= len(node.key)
            node = node.parent
        assert node is seq.root and end == 0
    for node in tree.nodes():
        assert node.locks == locks.get(node, 0)
