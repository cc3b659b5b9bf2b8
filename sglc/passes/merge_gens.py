"""Gens in a row on one prompt become one decode with captures.  Preserves text.

Where only text that is there by then stands between a gen and the next one, the second is marked
`fused`: it goes on in place, in the step after the first one ends, ahead of all that waits and on
the KV that is there.  Constants between them are encoded already (`kv.ids`).  Forks, selects, and
gens that wait for other calls or for the user's Python begin requests of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Block, Lit, Module, Op, Operand, Value
from sglc.passes.base import Pass, PassContext
from sglc.passes.facts import blocks_of, is_call, is_finished, is_pure

_LINKS = frozenset({"kv.extend", "kv.special"})
_CONTINUES = frozenset({"kv.extend", "kv.special", "kv.image", "kv.concat", "kv.decode",
                        "kv.score"})


@dataclass(frozen=True)
class MergeGens(Pass):
    """Mark gens that continue the one before them in place."""

    name: ClassVar[str] = "merge-gens"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"fused": 0, "chains": 0}
        for program in module.programs.values():
            if is_finished(program):
                continue
            for block in blocks_of(program):
                for op in block.ops:
                    before = _before(op, block)
                    if before is None:
                        continue
                    stats["fused"] += 1
                    stats["chains"] += not before.attrs.get("fused")
                    op.attrs["fused"] = True
                    context.record("fuse", str(before.attrs.get("name") or "a gen"),
                                   str(op.attrs.get("name") or "a gen"), op.loc)
        return stats


def _before(op: Op, block: Block) -> Op | None:
    """The gen that `op`, a gen, goes on from in place; None if it begins a request."""
    if op.name != "kv.decode" or not _is_single(op):
        return None
    texts: list[Operand] = list(op.operands[1:])
    at = op.operands[0]
    while True:
        before = at.op if isinstance(at, Value) else None
        if before is None or before.block is not block or not _only_continued_once(at):
            return None
        if before.name == "kv.decode":
            break
        if before.name not in _LINKS:
            return None
        for operand in before.operands[1:]:
            source = operand.op if isinstance(operand, Value) else None
            if source is not None and source.name == "kv.encode":
                texts.append(source.operands[1])
        at = before.operands[0]
    return before if _is_single(before) and _are_there(texts, before) else None


def _is_single(gen: Op) -> bool:
    return gen.attrs.get("n", 1) == 1 and not gen.attrs.get("heal")


def _only_continued_once(value: Operand) -> bool:
    users = value.uses if isinstance(value, Value) else []
    on = {u for u in users if u.name in _CONTINUES and u.operands[0] is value}
    return len(on) == 1 and not any(u.name in ("prompt.yield", "prompt.return") for u in users)


def _are_there(texts: list[Operand], gen: Op) -> bool:
    """Whether values are known once a gen is done: from arguments, or calls that it continues."""
    chain = {gen}
    at: Operand = gen.operands[0]  # how far back `chain` goes: no further than it must
    seen: set[Op] = set()
    todo = list(texts)
    while todo:
        operand = todo.pop()
        if isinstance(operand, Lit) or operand.op is None or operand.op in seen:
            continue
        seen.add(operand.op)
        if is_pure(operand.op):
            todo.extend(operand.op.operands)
            continue
        while operand.op not in chain:
            if not (isinstance(at, Value) and at.op is not None and at.op.name in _CONTINUES):
                return False
            if is_call(at.op):
                chain.add(at.op)
            at = at.op.operands[0]
    return True
