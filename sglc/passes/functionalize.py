"""Forks, joins and bags become uses of prompt values.  Preserves text.

A fork's children are the forked prompt itself, as prompts are immutable.  A join that appends
is a chain of `prompt.concat`, one a child; a join that only gathers variables is its parent.
A bag is its parts in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.errors import IRError
from sglc.ir.module import Block, Lit, Module, Op, Operand
from sglc.ir.types import PROMPT
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import replace, set_ops
from sglc.passes.facts import blocks

_REMOVED = frozenset(("prompt.fork", "prompt.join", "prompt.bag"))


@dataclass(frozen=True)
class Functionalize(Pass):
    """Remove `prompt.fork`, `prompt.join` and `prompt.bag`."""

    name: ClassVar[str] = "functionalize"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"forks": 0, "joins": 0, "bags": 0}
        for block in blocks(module):
            if any(op.name in _REMOVED for op in block.ops):
                _rewrite(block, stats, context)
        return stats


def _rewrite(block: Block, stats: dict[str, int], context: PassContext) -> None:
    out: list[Op] = []
    for op in block.ops:
        if op.name == "prompt.fork":
            stats["forks"] += 1
            context.record("fork", f"fork {len(op.results)}", "uses of the prompt", op.loc)
            replace(op, [op.operands[0]] * len(op.results))
        elif op.name == "prompt.join":
            stats["joins"] += 1
            context.record("join", op.attrs["mode"], "concat", op.loc)
            replace(op, [_join(op, out)])
        elif op.name == "prompt.bag":
            stats["bags"] += 1
            context.record("bag", f"{len(op.operands) - 2} parts", "appends", op.loc)
            replace(op, [_bag(op, out)])
        else:
            out.append(op)
    set_ops(block, out)


def _bag(op: Op, out: list[Op]) -> Operand:
    """The prompt with the parts in their order; new ops go to `out`."""
    prompt, separator, *parts = op.operands
    for index, part in enumerate(parts):
        for text in (separator, part) if index else (part,):
            if text == Lit(""):
                continue
            append = Op("prompt.append", (prompt, text), None, (PROMPT,), (), op.loc)
            out.append(append)
            prompt = append.results[0]
    return prompt


def _join(op: Op, out: list[Op]) -> Operand:
    """The joined prompt; new ops go to `out`."""
    joined, base, *children = op.operands
    mode = op.attrs["mode"]
    if mode == "gather_variable":
        return joined
    if mode != "concate_and_append":
        raise IRError("SGLC201", f"prompt.join has the unknown mode {mode!r}", place=op.loc,
                      fixes=("use 'gather_variable' or 'concate_and_append'",))
    for child in children:
        concat = Op("prompt.concat", (joined, child, base), None, (PROMPT,), (), op.loc)
        out.append(concat)
        joined = concat.results[0]
    return joined
