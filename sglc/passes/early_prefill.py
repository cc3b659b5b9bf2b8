"""Prefixes that are ready are prefilled while the rest of a prompt waits.  Preserves text.

`kv.prefill %k` before a gen or select asks for the KV of a prefix of its prompt: the longest one
that does not depend on a host call that the prompt depends on.  The runtime asks for it as soon
as the prefix is known, so it is computed while that call runs.  It stands only where the gen or
select runs whenever it does itself, where no other call reads that prefix without waiting, and
where the prefix adds a text of the run, or enough constant tokens: nothing is computed that would
not be, unless the program raises in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from sglc.ir.module import Lit, Module, Op, Operand, Program, Value
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import set_ops
from sglc.passes.facts import all_inputs, is_call, is_finished

_LINKS = frozenset({"kv.extend", "kv.special", "kv.image", "kv.concat", "kv.role_begin",
                    "kv.role_end"})
Calls = frozenset[Op]


@dataclass(frozen=True)
class EarlyPrefill(Pass):
    """Insert `kv.prefill`.

    min_tokens: constant tokens that are worth a request.  min_latency: host calls declared to be
    shorter (in seconds) are not worth one.
    """

    name: ClassVar[str] = "early-prefill"
    min_tokens: int = 16
    min_latency: float = 0.002

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"marks": 0}
        for program in module.programs.values():
            if not is_finished(program):
                _Marks(self, program, context, stats).run()
        return stats


class _Marks:
    def __init__(self, options: EarlyPrefill, program: Program, context: PassContext,
                 stats: dict[str, int]) -> None:
        self.options, self.program, self.context, self.stats = options, program, context, stats
        self.needs: dict[Value, Calls] = {}  # the calls that each value depends on
        self.inputs = all_inputs(program)

    def run(self) -> None:
        calls = []
        for op in self.program.walk():  # holders before what they hold
            self._visit(op)
            if is_call(op):
                calls.append(op)
        if not any(self._is_slow(op) for op in self.program.walk()):
            return
        readers: dict[Value, list[Op]] = {}  # by each prompt, the calls that have it on their way
        for call in calls:
            for value in self._way(call):
                readers.setdefault(value, []).append(call)
        for call in calls:
            marks = [v for v in self._ready(call) if not self._is_read(v, call, readers[v])]
            for value in marks:
                readers[value] = []  # one mark is enough
            if marks:
                self._insert(call, marks)

    def _visit(self, op: Op) -> None:
        found = frozenset().union(*[self._needs(v) for v in self.inputs[op]])
        for region in op.regions:
            for arg in region.args:  # anything that goes in
                self.needs[arg] = found
            found |= frozenset([o for o in region.walk() if self._is_wait(o)])
        if self._is_wait(op):
            found |= {op}
        for result in op.results:
            self.needs[result] = found

    def _needs(self, operand: Operand) -> Calls:
        return self.needs.get(operand, frozenset()) if isinstance(operand, Value) else frozenset()

    def _is_wait(self, op: Op) -> bool:
        return op.name == "prompt.host" or is_call(op)

    def _is_slow(self, op: Op) -> bool:
        if op.name != "prompt.host":
            return False
        latency = op.attrs.get("latency")
        return latency is None or latency >= self.options.min_latency

    def _way(self, call: Op) -> list[Value]:
        """The prompts that a call continues, longest first, back to the call before it."""
        way: list[Value] = []
        at: Operand = call.operands[0]
        while isinstance(at, Value):
            way.append(at)
            if at.op is None or at.op.name not in _LINKS:
                break
            at = at.op.operands[0]
        return way

    def _ready(self, call: Op) -> list[Value]:
        """The prefixes of a call's prompt behind which it waits for a slow call, and that add
        something to the one before."""
        way = self._way(call)
        found: list[Value] = []
        for end, before in pairwise(way):
            if any(self._is_slow(op) for op in self._needs(end) - self._needs(before)):
                found.append(before)
        return [v for v in found if self._is_long(v, found)]

    def _is_long(self, prefix: Value, others: list[Value]) -> bool:
        """Whether enough is added between the mark or call before a prefix, and it."""
        tokens = 0
        at: Operand = prefix
        while isinstance(at, Value) and at.op is not None and at.op.name in _LINKS:
            op = at.op
            if op.name == "kv.extend":
                piece = op.operands[1].op if isinstance(op.operands[1], Value) else None
                if piece is None or piece.name != "kv.ids":
                    if piece is None or not isinstance(piece.operands[1], Lit):
                        return True
                    tokens += self._tokens(str(piece.operands[1].value))
                else:
                    tokens += len(piece.attrs["ids"])
            elif op.name == "kv.special":
                tokens += 1
            else:
                return True
            if tokens >= self.options.min_tokens:
                return True
            at = op.operands[0]
            if at in others:
                break
        return False

    def _tokens(self, text: str) -> int:
        tokenizer = self.context.tokenizer
        return len(text) // 4 if tokenizer is None else len(tokenizer.encode(text))

    def _is_read(self, prefix: Value, call: Op, readers: list[Op]) -> bool:
        """Whether the prefix is read without waiting, by a call that runs whenever `call` does,
        or is marked already."""
        if call not in readers:
            return True
        waits = self._needs(prefix)
        for other in readers:
            slow = any(self._is_slow(op) for op in self._needs(other.operands[0]) - waits)
            if other is not call and not slow and _holds(other, call):
                return True
        return False

    def _insert(self, call: Op, marks: list[Value]) -> None:
        assert call.block is not None
        ops = list(call.block.ops)
        at = ops.index(call)
        ops[at:at] = [Op("kv.prefill", (value,), None, (), (), call.loc) for value in marks]
        set_ops(call.block, ops)
        self.stats["marks"] += len(marks)
        self.context.record("prefill", "a prefix waits", f"{len(marks)} prefilled before",
                            call.loc)


def _holds(other: Op, call: Op) -> bool:
    """Whether `other` is in the block of `call`, or in one around it."""
    block = call.block
    while block is not None:
        if other.block is block:
            return True
        parent = block.parent
        block = parent.block if isinstance(parent, Op) else None
    return False
