"""What nobody can see is not computed.  Preserves text.

Kept: what reaches a bind, meta, message, host call or return, and pure ops that may raise.  A
model call has no other effect than its results.  Branches lose the results nobody reads, and go
if nothing is left in them.

With `outputs`, only those variables stay observable: other binds and metas go, and with them
what only they needed, even if it might have raised, or the body reads it.  Messages and the final
prompt stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.errors import UnknownVariable
from sglc.ir.module import Block, Module, Op, Operand, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.signatures import LOOPS
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import detach, set_ops
from sglc.passes.facts import BRANCHES, is_call, is_finished, is_pure, is_total
from sglc.passes.pick_texts import has_events

_NAMED = ("prompt.bind", "prompt.meta")


@dataclass(frozen=True)
class EliminateDead(Pass):
    """Remove dead ops.  outputs: the variables to keep (empty: all)."""

    name: ClassVar[str] = "eliminate-dead"
    outputs: tuple[str, ...] = ()

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        if self.outputs:
            _check_names(self.outputs, module)
        stats = {"ops": 0, "calls": 0, "results": 0}
        for program in module.programs.values():
            marks = _Marks(program, self.outputs)
            _sweep(program.body, marks, stats, context)
            if self.outputs:
                program.returns = tuple(n for n in program.returns if n in self.outputs)
        return stats


def dead_calls(program: Program) -> list[Op]:
    """The model calls that nothing observable needs, in order."""
    alive = _Marks(program, ()).alive
    return [op for op in program.walk() if is_call(op) and op not in alive]


def _check_names(outputs: tuple[str, ...], module: Module) -> None:
    known = {op.attrs["name"]: None for op in module.walk() if op.name in _NAMED}
    for name in outputs:
        if name not in known:
            raise UnknownVariable("SGLC003", f"outputs names {name!r}, which is no variable of "
                                  "the program", fixes=(f"use some of {', '.join(known)}",))


class _Marks:
    """Which ops are alive, and which of their results are read by something alive."""

    def __init__(self, program: Program, outputs: tuple[str, ...]) -> None:
        self.alive: set[Op] = set()
        self.needed: set[Value] = set()
        self._todo: list[Operand] = []
        self._whole_branches = is_finished(program)  # arms' yields were the ends of sequences
        self._told = has_events(program.body)  # a trace that goes on is told which arms it took
        for op in program.walk():
            if self._is_root(op, program, outputs):
                self._mark(op)
        while self._todo:
            self._need(self._todo.pop())
        self.reads: dict[Op, list[Operand]] = {}  # those that keep nothing alive: what is left
        for op in program.walk() if outputs else ():
            if op.name == "prompt.read":
                left = [o for o in op.operands[1:] if self._is_there(o)]
                if left and self._is_there(op.operands[0]):
                    self.reads[op] = [op.operands[0], *left]
                    self.alive.add(op)

    def _is_root(self, op: Op, program: Program, outputs: tuple[str, ...]) -> bool:
        effect = OPS[op.name].effect
        if op.name in _NAMED:
            return not outputs or op.attrs["name"] in outputs
        if op.name == "prompt.read" and outputs:
            return False
        if effect == "observe" or (self._told and op.name == "prompt.if" and "event" in op.attrs):
            return True
        if effect == "host":
            return not op.attrs.get("pure")
        if effect == "end":
            return op.block is program.body or op.name != "prompt.yield"
        if op.regions and op.name not in BRANCHES and op.name not in LOOPS:
            return True
        return is_pure(op) and not outputs and not is_total(op)

    def is_kept_mark(self, op: Op) -> bool:
        """Whether this is a release or pin of what a living op makes."""
        if OPS[op.name].effect != "mark":
            return False
        value = op.operands[0]
        return isinstance(value, Value) and (value.op is None or value.op in self.alive)

    def _is_there(self, operand: Operand) -> bool:
        """Whether something living makes the value, whoever reads it."""
        op = operand.op if isinstance(operand, Value) else None
        if op is None:
            return True
        return operand in self.needed if op.regions else op in self.alive

    def _mark(self, op: Op) -> None:
        if op in self.alive:
            return
        self.alive.add(op)
        if op.name != "prompt.yield":
            self._todo.extend(op.operands)
        if (op.name in BRANCHES or op.name in LOOPS) and self._whole_branches:
            self._todo.extend(op.results)
        for region in op.regions:
            if region.terminator is not None:
                self._mark(region.terminator)
                if op.name in LOOPS:  # all that is carried may matter to the next round
                    carried = len(op.operands) - 1
                    self._todo.extend(region.terminator.operands[:carried])
                    self._todo.extend(op.results[:carried])
        parent = op.block.parent if op.block is not None else None
        if isinstance(parent, Op):
            self._mark(parent)

    def _need(self, operand: Operand) -> None:
        if not isinstance(operand, Value) or operand in self.needed:
            return
        self.needed.add(operand)
        op = operand.op
        if op is None:
            return  # a region's op is alive if anything in it is, and reads its arguments
        self._mark(op)
        if op.name in BRANCHES or op.name in LOOPS:
            for region in op.regions:
                last = region.terminator
                if last is not None:
                    self._todo.append(last.operands[operand.index])


def _sweep(block: Block, marks: _Marks, stats: dict[str, int], context: PassContext) -> None:
    out: list[Op] = []
    dead: list[Op] = []
    for op in block.ops:
        if op not in marks.alive and not marks.is_kept_mark(op):
            dead.append(op)
            stats["ops"] += 1
            stats["calls"] += sum(is_call(inner) for inner in op.walk())
            context.record("dead", op.name, "nothing", op.loc)
            continue
        if op in marks.reads:
            op.set_operands(marks.reads[op])
        for region in op.regions:
            _sweep(region, marks, stats, context)
        if (op.name in BRANCHES or op.name in LOOPS) and any(
                r not in marks.needed for r in op.results):
            stats["results"] += sum(r not in marks.needed for r in op.results)
            op = _narrowed(op, marks)
        out.append(op)
    if len(out) != len(block.ops) or out != block.ops:
        set_ops(block, out)
    for op in reversed(dead):
        detach(op)


def _narrowed(branch: Op, marks: _Marks) -> Op:
    """The branch or loop without the results that nobody reads."""
    kept = [r for r in branch.results if r in marks.needed]
    for region in branch.regions:
        last = region.terminator
        if last is not None:
            last.set_operands([last.operands[r.index] for r in kept])
    attrs = dict(branch.attrs)
    if branch.name in LOOPS:
        attrs["collected"] = len(kept) - (len(branch.operands) - 1)
    new = Op(branch.name, branch.operands, attrs, [r.type for r in kept], branch.regions,
             branch.loc, [r.name for r in kept])
    for old, result in zip(kept, new.results, strict=True):
        old.replace_by(result)
    branch.regions = ()
    detach(branch)
    return new
