"""Editing blocks in bulk: linear in the block, where removing ops one by one is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sglc.ir.module import Block, Op, Operand, Value


def set_ops(block: Block, ops: Iterable[Op]) -> None:
    """Make `ops` the ops of `block`."""
    block.ops = list(ops)
    for op in block.ops:
        op.block = block


def detach(op: Op) -> None:
    """Unlink an op from what it reads; the caller leaves it out of its block."""
    for region in op.regions:
        for inner in reversed(region.ops):
            detach(inner)
        region.ops = []
    op.set_operands(())
    op.block = None


def replace(op: Op, values: Sequence[Operand]) -> None:
    """Let users read `values` instead of the op's results, and detach it."""
    for result, value in zip(op.results, values, strict=True):
        if result.uses:
            result.replace_by(value)
        if isinstance(value, Value) and not value.name:
            value.name = result.name
    detach(op)


def remove(block: Block, dead: set[Op]) -> None:
    """Take ops out of a block; their results must be unused or used by each other."""
    if not dead:
        return
    gone = [op for op in block.ops if op in dead]
    block.ops = [op for op in block.ops if op not in dead]
    for op in reversed(gone):
        detach(op)
