"""A branch between texts becomes a text: `if c {append A} else {append B}` appends one or other.

Exact: the prompts are the same values, and ids are a function of the prompt alone.  Used by
`fold`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir.module import Block, Lit, Op, Operand, Value
from sglc.ir.types import PROMPT, TEXT, is_text

_FUSED = {"eq": "pick_equal", "ne": "pick_unequal"}


def has_events(block: Block) -> bool:
    """Whether a run may go on in another trace, which is told the outcomes of the branches."""
    return any(op.name in ("prompt.check", "prompt.break") or any(map(has_events, op.regions))
               for op in block.ops)


def picked(op: Op) -> tuple[list[Op], list[Operand]] | None:
    """Ops in place of a `prompt.if`, and what stands for its results; None if its arms do more
    than append literals."""
    if len(op.regions) != 2 or len(op.operands) != 1 or any(r.args for r in op.regions):
        return None
    condition = op.operands[0]
    arms = [_arm(region) for region in op.regions]
    if arms[0] is None or arms[1] is None or not isinstance(condition, Value):
        return None
    pairs = list(zip(op.results, arms[0], arms[1], strict=True))
    for result, (base, _), (other, _) in pairs:
        if result.uses and (result.type != PROMPT or base is not other):
            return None
    new: list[Op] = []
    values: list[Operand] = []
    for result, (base, first), (_, second) in pairs:
        if not result.uses:
            values.append(Lit(None))
            continue
        text = _pick(condition, Lit(first), Lit(second), op)
        new.append(text)
        new.append(Op("prompt.append", (base, text.results[0]), None, (PROMPT,), (), op.loc))
        values.append(new[-1].results[0])
    return new, values


def _arm(region: Block) -> list[tuple[Operand, str]] | None:
    """For each result of an arm, the value from outside that it is, and the text after it."""
    *ops, last = region.ops
    inside: dict[Value, tuple[Operand, str]] = {}
    for op in ops:
        if op.name != "prompt.append" or not isinstance(op.operands[1], Lit):
            return None
        base, text = op.operands[0], op.operands[1].value
        before, start = inside.get(base, (base, "")) if isinstance(base, Value) else (base, "")
        inside[op.results[0]] = before, start + text
    return [inside.get(v, (v, "")) if isinstance(v, Value) else (v, "") for v in last.operands]


def _pick(condition: Value, then: Operand, otherwise: Operand, at: Op) -> Op:
    test = condition.op
    operands: Sequence[Operand] = (condition, then, otherwise)
    fn = "pick"
    if (test is not None and test.name == "prompt.compute" and test.attrs["fn"] in _FUSED
            and all(is_text(o.type) for o in test.operands)):
        operands, fn = (*test.operands, then, otherwise), _FUSED[test.attrs["fn"]]
    return Op("prompt.compute", operands, {"fn": fn}, (TEXT,), (), at.loc)
