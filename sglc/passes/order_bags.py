"""Bags take the order in which the rows of the batch share most.  Preserves quality.

The order is the rule of `ir/bags.py` over the texts of the batch's arguments, applied at run
time; the eager interpreter applies the same one at this level.  Bags that stay are written in
the order given, by functionalize.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Block, Module, Op
from sglc.ir.types import JSON, PROMPT, TEXT
from sglc.passes.base import Pass, PassContext, Preserves
from sglc.passes.edit import replace, set_ops
from sglc.passes.facts import blocks


@dataclass(frozen=True)
class OrderBags(Pass):
    """Turn `prompt.bag` into text whose order the batch decides."""

    name: ClassVar[str] = "order-bags"
    preserves: ClassVar[Preserves] = "quality"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"bags": 0, "parts": 0}
        for block in blocks(module):
            if any(op.name == "prompt.bag" for op in block.ops):
                _rewrite(block, stats, context)
        return stats


def _rewrite(block: Block, stats: dict[str, int], context: PassContext) -> None:
    out: list[Op] = []
    for op in block.ops:
        if op.name != "prompt.bag" or len(op.operands) < 4:  # nothing to order
            out.append(op)
            continue
        prompt, separator, *parts = op.operands
        batch = Op("prompt.batch", (), None, (JSON,), (), op.loc)
        text = Op("prompt.compute", (batch.results[0], separator, *parts), {"fn": "bag.text"},
                  (TEXT,), (), op.loc)
        append = Op("prompt.append", (prompt, text.results[0]), None, (PROMPT,), (), op.loc)
        out += [batch, text, append]
        context.record("bag", f"{len(parts)} parts", "ordered by the batch", op.loc)
        replace(op, [append.results[0]])
        stats["bags"] += 1
        stats["parts"] += len(parts)
    set_ops(block, out)
