"""Which token sequences of a kv-stage program are the same in every instance."""

from __future__ import annotations

from array import array

from sglc.ir.module import Block, Op, Program, Value
from sglc.tokens.prompt import Prompt
from sglc.tokens.tokenizer import Encoded, Tokenizer


def constant_values(program: Program) -> set[Value]:
    """The !kv values that depend on nothing but constants."""
    found: set[Value] = set()
    for op in program.walk():
        if op.name == "kv.root" or (_extends_by_constant(op) and op.operands[0] in found):
            found.update(op.results)
    return found


def constant_prompts(program: Program, tokenizer: Tokenizer) -> dict[Value, Prompt]:
    """The prompts that the constant !kv values are."""
    found: dict[Value, Prompt] = {}

    def visit(block: Block) -> None:
        for op in block.ops:
            if op.name == "kv.root":
                found[op.results[0]] = Prompt.empty(tokenizer)
            elif _extends_by_constant(op) and op.operands[0] in found:
                before = found[op.operands[0]]  # type: ignore[index]
                found[op.results[0]] = (before.special(op.attrs["id"]) if op.name == "kv.special"
                                        else before.append_encoded(encoded(op)))
            for region in op.regions:
                visit(region)

    visit(program.body)
    return found


def encoded(extend: Op) -> Encoded:
    """What a `kv.extend` by a `kv.ids` adds."""
    ids = extend.operands[1]
    assert isinstance(ids, Value) and ids.op is not None
    attrs = ids.op.attrs
    return Encoded(attrs["text"], array("q", attrs["ids"]), attrs["held"],
                   attrs.get("after", ""))


def _extends_by_constant(op: Op) -> bool:
    if op.name == "kv.special":
        return True
    if op.name != "kv.extend":
        return False
    ids = op.operands[1]
    return isinstance(ids, Value) and ids.op is not None and ids.op.name == "kv.ids"
