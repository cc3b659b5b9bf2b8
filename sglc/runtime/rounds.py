"""How often the loops of a program run, from its arguments alone.

The tracer makes loops of run-time length only over arguments, so the number of rounds is known
before anything of an instance runs: its steps are laid out flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sglc.errors import IRError
from sglc.ir import compute
from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.signatures import LOOPS


class Rounds:
    """The rounds of a program's loops for given arguments."""

    def __init__(self, program: Program, arguments: Mapping[str, Any]) -> None:
        self.program = program
        self.numbers: dict[Value, Any] = {
            arg: arguments[arg.name] for arg in program.args if arg.name in arguments}

    def of(self, loop: Op) -> Iterator[int]:
        """The rounds' numbers; while one is out, counts of loops inside are those of that round."""
        count = self.value(loop.operands[0], loop)
        for i in range(count):
            self.numbers[loop.regions[0].args[0]] = i
            yield i

    def counts(self) -> tuple[int, ...]:
        """How often each loop runs, in the order of running: the same for the same layout."""
        found: list[int] = []

        def visit(block: Block) -> None:
            for op in block.ops:
                if op.name in LOOPS:
                    count = self.value(op.operands[0], op)
                    found.append(count)
                    if has_loops(op.regions[0]):
                        for _ in self.of(op):
                            visit(op.regions[0])
                else:
                    for region in op.regions:
                        visit(region)

        visit(self.program.body)
        return tuple(found)

    def value(self, operand: Operand, loop: Op) -> Any:
        """The value of something that depends on arguments only."""
        if isinstance(operand, Lit):
            return operand.value
        if operand in self.numbers:
            return self.numbers[operand]
        op = operand.op
        if op is None or op.name not in ("prompt.compute", "prompt.format"):
            raise IRError("SGLC201", "the number of a loop's rounds does not come from arguments",
                          place=loop.loc)
        values = [self.value(o, loop) for o in op.operands]
        if op.name == "prompt.format":
            return compute.run_format(op.attrs["parts"], values)
        return compute.function(op.attrs["fn"])(*values)


def has_loops(block: Block | Program) -> bool:
    return any(op.name in LOOPS for op in block.walk())
