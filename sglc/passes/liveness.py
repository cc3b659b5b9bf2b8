"""When token sequences are used for the last time, and which are needed again.  Preserves text.

`kv.release` follows the last use of each !kv value in its block (uses in a region count where
the region's op stands); values that a terminator hands on belong to who receives them.
`kv.pin {uses}` follows a value that several calls or extensions certainly continue, and one that
ends the constant prefix of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Block, Module, Op, Value
from sglc.ir.prompt_flow import in_block
from sglc.ir.types import KV
from sglc.passes.base import Pass, PassContext
from sglc.passes.constants import constant_values
from sglc.passes.edit import set_ops
from sglc.passes.facts import all_inputs, blocks_of, is_call, is_finished

_CONTINUES = frozenset({"kv.extend", "kv.special", "kv.image", "kv.concat"})


@dataclass(frozen=True)
class Liveness(Pass):
    """Insert `kv.release` and `kv.pin`."""

    name: ClassVar[str] = "liveness"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"released": 0, "pinned": 0}
        for program in module.programs.values():
            if is_finished(program):
                continue
            constant = constant_values(program)
            pins = {block: _pins(block, constant, context.rows > 1)
                    for block in blocks_of(program)}
            inputs = all_inputs(program)
            for block, pinned in pins.items():
                _insert(block, pinned, inputs, stats)
        return stats


def _insert(block: Block, pins: dict[Value, int], inputs: dict[Op, list[Value]],
            stats: dict[str, int]) -> None:
    *body, terminator = block.ops
    owned = {r: None for op in body for r in op.results if r.type == KV}
    last: dict[Value, Op] = {}
    for op in block.ops:
        for value in inputs[op]:
            if value in owned:
                last[value] = op
    dying: dict[Op, list[Value]] = {}
    for value in owned:
        at = last.get(value) or value.op
        if at is not None:
            dying.setdefault(at, []).append(value)
    out: list[Op] = []
    for op in body:
        out.append(op)
        for result in op.results:
            if result in pins:
                out.append(Op("kv.pin", (result,), {"uses": pins[result]}, (), (), op.loc))
                stats["pinned"] += 1
        for value in dying.get(op, ()):
            out.append(Op("kv.release", (value,), None, (), (), op.loc))
            stats["released"] += 1
    set_ops(block, [*out, terminator])


def _pins(block: Block, constant: set[Value], batch: bool) -> dict[Value, int]:
    """The block's values to pin, with how many uses they have at most."""
    pins: dict[Value, int] = {}
    for op in block.ops:
        if op.name == "kv.root":
            continue
        for result in op.results:
            if result.type != KV:
                continue
            least, most = _continuations(result, block)
            ends_constant = batch and result in constant and any(
                is_call(user) or (_continues(user, result) and user.results[0] not in constant)
                for user in result.uses)
            if least and (most > 1 or ends_constant):
                pins[result] = most
    return pins


def _continues(op: Op, value: Value) -> bool:
    return is_call(op) or (op.name in _CONTINUES and op.operands[0] is value)


def _continuations(value: Value, block: Block) -> tuple[int, int]:
    """How many ops of the block continue `value`, at least and at most, whatever arms run."""
    least = most = 0
    nested: dict[Op, None] = {}
    for user in dict.fromkeys(value.uses):
        if user.block is block:
            if _continues(user, value):
                least += 1
                most += 1
        elif (holder := in_block(user, block)) is not None:
            nested[holder] = None
    for holder in nested:
        counts = [_continuations(value, region) for region in holder.regions]
        least += min(c[0] for c in counts)
        most += max(c[1] for c in counts)
    return least, most
