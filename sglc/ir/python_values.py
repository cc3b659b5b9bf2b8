"""Writes the values of a program as Python: which expression or name each has.

Knows no state variables: which of them is at which prompt is in `python_prompts.py`.
"""

from __future__ import annotations

import keyword
import re

from sglc.ir import python_text
from sglc.ir.module import Lit, Op, Operand, Program, Value
from sglc.ir.prompt_flow import Flow
from sglc.ir.python_source import Line
from sglc.ir.python_state import Arm, Names, is_item_of_argument, unwritable
from sglc.ir.python_text import FormatPart, Source


class ValueWriter:
    """Writes expressions, and statements that name them.

    known: how values are written; hosts: the functions that are called by name; at: the arm that
    is being written.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.flow = Flow(program)
        for arg in program.args:
            if not arg.name.isidentifier() or keyword.iskeyword(arg.name):
                raise unwritable(f"the argument {arg.name!r}", program.loc)
        self.names = Names([a.name for a in program.args])
        self.known: dict[Value, Source] = {a: Source(a.name) for a in program.args}
        self.hosts: dict[str, None] = {}
        self.at = Arm({}, {})

    # -- statements -----------------------------------------------------------------------
    def line(self, text: str) -> None:
        self.at.statements.append(Line(text))

    def local(self, value: Value, source: Source) -> None:
        """A statement that names a value, or only computes it."""
        if not value.uses:
            if not is_item_of_argument(value):
                self.line(source.text)  # it may raise
            return
        name = self.names.fresh(value.name or "t")
        self.line(f"{name} = {source.text}")
        self.known[value] = Source(name)

    def named(self, expression: str) -> str:
        name = self.names.fresh("t")
        self.line(f"{name} = {expression}")
        return name

    def host_(self, op: Op) -> None:
        name = re.sub(r"\W+", "_", str(op.attrs["fn"]).rpartition(".")[2]) or "host"
        if not name.isidentifier() or keyword.iskeyword(name):
            name = f"host_{name}"
        args = [self.write(o).text for o in op.operands[:op.attrs.get("args")]]
        if name == "as_text" and len(args) == 1:  # what appending a value means
            self.local(op.results[0], Source(args[0]))
            return
        self.hosts.setdefault(name)
        call = Source(f"{name}({', '.join(args)})")
        if op.results:
            self.local(op.results[0], call)
        else:
            self.line(call.text)

    # -- expressions ----------------------------------------------------------------------
    def write(self, operand: Operand) -> Source:
        if isinstance(operand, Lit):
            return python_text.literal(operand.value)
        known = self.known.get(operand)
        if known is not None:
            return known
        op = operand.op
        if op is None or not self.flow.is_inlined(op):
            raise unwritable(f"the value {operand!r}", op.loc if op is not None else None)
        return self.expression(op)

    def expression(self, op: Op) -> Source:
        if op.name == "prompt.list":
            return Source(f"[{', '.join([self.write(o).text for o in op.operands])}]")
        if op.name == "prompt.format":
            return python_text.format_text(self.format_parts(op), self.write, self.named)
        try:
            return python_text.compute(op, self.write)
        except KeyError:
            raise unwritable(f"the operation {op.attrs['fn']!r}", op.loc) from None

    def format_parts(self, op: Op) -> list[FormatPart]:
        """The parts of a format, those of formats in it included."""
        parts: list[FormatPart] = []
        for part in op.attrs["parts"]:
            if isinstance(part, str):
                parts.append(part)
                continue
            index, conversion, spec = part
            operand = op.operands[index]
            inner = operand.op if isinstance(operand, Value) else None
            if (inner is not None and inner.name == "prompt.format" and not conversion
                    and not spec and self.flow.is_inlined(inner)):
                parts += self.format_parts(inner)
            else:
                parts.append((operand, conversion or "", spec))
        return parts
