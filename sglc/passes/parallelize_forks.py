"""Every model call stands as early as its operands allow.  Preserves text.

Each block is put in a stable order by depth (the longest chain of model calls before an op), so
that siblings, such as the branches of a fork, are issued together.  Ops that observe, call the
user's code or may raise keep their order among each other.  The critical path of an in-order
walk, which waits at ordered ops, never grows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Block, Module, Op, Program, Value
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import set_ops
from sglc.passes.facts import all_inputs, blocks_of, is_call, is_finished, is_ordered

Level = tuple[int, int]  # model calls before, then waits for ordered ops at that depth


@dataclass(frozen=True)
class ParallelizeForks(Pass):
    """Reorder model calls to the front."""

    name: ClassVar[str] = "parallelize-forks"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"moved": 0, "width": 0, "critical_path": 0}
        for program in module.programs.values():
            if is_finished(program):
                continue
            facts = _Facts(program)
            before = facts.walk_all(program)
            for block in blocks_of(program):
                moved, width = _reorder(block, facts)
                stats["moved"] += moved
                stats["width"] = max(stats["width"], width)
                facts.walk(block)
            after = facts.times[program.body]
            if after > before:
                raise AssertionError(f"the critical path grew from {before} to {after}")
            stats["critical_path"] = max(stats["critical_path"], after)
        return stats


class _Facts:
    """What ops read and which are ordered (fixed), and how long blocks take (as ordered now)."""

    def __init__(self, program: Program) -> None:
        self.inputs = all_inputs(program)
        self.ordered = {op for op in self.inputs if is_ordered(op)}
        self.times: dict[Block, int] = {}

    def walk_all(self, program: Program) -> int:
        for block in blocks_of(program):
            self.walk(block)
        return self.times[program.body]

    def weight(self, op: Op) -> int:
        """How many model calls follow one another in the op."""
        if op.regions:
            return max([self.times[region] for region in op.regions])
        return int(is_call(op))

    def walk(self, block: Block) -> None:
        """Find the block's time, after those of the blocks in it."""
        now = 0  # where the walk has got to
        ordered_until = 0  # when the last ordered op is done
        end = 0
        ready: dict[Value, int] = {}
        for op in block.ops:
            start = now
            for value in self.inputs[op]:
                at = ready.get(value, 0)
                if at > start:
                    start = at
            weight = self.weight(op)
            if op in self.ordered:
                now = start = max(start, ordered_until)
                ordered_until = start + weight
            done = start + weight
            for result in op.results:
                ready[result] = done
            end = max(end, done)
        self.times[block] = end


def _reorder(block: Block, facts: _Facts) -> tuple[int, int]:
    """Order one block; how many ops moved, and how many calls share a depth at most."""
    ready: dict[Value, Level] = {}
    levels: dict[Op, Level] = {}
    last_ordered: Level = (0, 0)
    calls: Counter[int] = Counter()
    *body, terminator = block.ops
    for op in body:
        level: Level = (0, 0)
        for value in facts.inputs[op]:
            at = ready.get(value, level)
            if at > level:
                level = at
        ordered = op in facts.ordered
        if ordered:
            # Odd phases: after the other ops of the depth, which are issued without waiting.
            level = max((level[0], level[1] | 1), last_ordered)
        weight = facts.weight(op)
        if weight:
            calls[level[0]] += 1
            done = (level[0] + weight, 0)
        else:
            done = (level[0], level[1] + ordered)
        if ordered:
            last_ordered = done if weight else level
        levels[op] = level
        for result in op.results:
            ready[result] = done
    order = sorted(body, key=levels.__getitem__)
    moved = sum([a is not b for a, b in zip(order, body, strict=True)])
    if moved:
        set_ops(block, [*order, terminator])
    return moved, max(calls.values(), default=0)


def critical_path(program: Program) -> int:
    """Model calls that follow one another when ops are issued in order, without waiting except
    at ordered ops, each call taking one unit of time."""
    return _Facts(program).walk_all(program)
