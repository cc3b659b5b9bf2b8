"""A program as Graphviz text: ops are nodes, values are edges, regions are boxes.

Only text: drawing it is the caller's business.
"""

from __future__ import annotations

from sglc.ir.literals import write
from sglc.ir.module import Block, Lit, Op, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.printer import value_names
from sglc.ir.signatures import PROMPTS

_COLOURS = {"none": "#eef2f7", "sample": "#ffe3b3", "observe": "#d8f0d2", "host": "#f6d0d0",
            "end": "#ffffff", "mark": "#e9e0f5"}


def to_dot(program: Program, *, elide: int = 40) -> str:
    """Graphviz source of a program; texts longer than `elide` characters show only their ends."""
    return _Drawing(program, elide).text()


class _Drawing:
    def __init__(self, program: Program, elide: int) -> None:
        self.program = program
        self.elide = elide
        self.names = value_names(program)
        self.numbers: dict[Op, int] = {op: i for i, op in enumerate(program.walk())}
        self.lines: list[str] = []
        self.clusters = 0

    def text(self) -> str:
        self.lines = [
            f"digraph {_quoted(self.program.name)} {{",
            '  graph [rankdir=TB, fontname="Helvetica"];',
            '  node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=10];',
            '  edge [fontname="Helvetica", fontsize=8];',
        ]
        for index, arg in enumerate(self.program.args):
            label = _quoted(f"{self.names[arg]}: {arg.type}")
            self.lines.append(f'  arg{index} [shape=ellipse, fillcolor="#dbe9fb", label={label}];')
        self.block(self.program.body, "  ")
        for op in self.numbers:
            self.edges(op)
        self.lines.append("}\n")
        return "\n".join(self.lines)

    def block(self, block: Block, indent: str) -> None:
        for op in block.ops:
            label = [op.name, *(write(o.value, self.elide) for o in op.operands
                                if isinstance(o, Lit))]
            label += [f"{n} = {write(op.attrs[n], self.elide)}" for n in sorted(op.attrs)]
            if op.loc is not None:
                label.append(str(op.loc))
            text = "\\n".join(_escaped(part) for part in label)
            colour = _COLOURS[OPS[op.name].effect] if op.name in OPS else "#ffffff"
            self.lines.append(
                f'{indent}op{self.numbers[op]} [fillcolor="{colour}", label="{text}"];')
            for region in op.regions:
                self.clusters += 1
                self.lines.append(f"{indent}subgraph cluster{self.clusters} {{")
                title = _quoted(f"{op.name} {region.label}".strip())
                self.lines.append(f"{indent}  label={title}; color=grey;")
                self.block(region, indent + "  ")
                self.lines.append(f"{indent}}}")

    def edges(self, op: Op) -> None:
        for operand in op.operands:
            if isinstance(operand, Value):
                style = ", penwidth=2" if operand.type.name in PROMPTS else ""
                label = _quoted(self.names.get(operand, "?"))
                self.lines.append(
                    f"  {self.source(operand)} -> op{self.numbers[op]} [label={label}{style}];")
        for region in op.regions:
            if region.ops:
                first = self.numbers[region.ops[0]]
                self.lines.append(f"  op{self.numbers[op]} -> op{first} [style=dashed];")

    def source(self, value: Value) -> str:
        owner = value.owner
        if isinstance(owner, Op):
            return f"op{self.numbers[owner]}"
        holder = owner.parent
        return f"op{self.numbers[holder]}" if isinstance(holder, Op) else f"arg{value.index}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
