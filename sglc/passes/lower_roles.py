"""Chat roles, and what stands around images, become the text and control tokens of the chat
template.  Preserves text.

The pieces come from the template (which keeps earlier turns as they are, see the semantics);
contents stay where they are.  Needs a template in the context only if the program has roles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sglc.errors import TokenError
from sglc.ir.module import Block, Lit, Module, Op, Operand
from sglc.ir.types import PROMPT
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import replace, set_ops
from sglc.passes.facts import blocks
from sglc.tokens.images import image_text
from sglc.tokens.templates import piece_text

_ROLES = ("prompt.role_begin", "prompt.role_end")


@dataclass(frozen=True)
class LowerRoles(Pass):
    """Remove `prompt.role_begin` and `prompt.role_end`, and leave images without text around."""

    name: ClassVar[str] = "lower-roles"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"borders": 0}
        seen: dict[tuple[str, tuple[str, ...], str], tuple[Any, ...]] = {}
        for block in blocks(module):
            if any(op.name == "prompt.image" for op in block.ops):
                _around_images(block, context)
            if any(op.name in _ROLES for op in block.ops):
                stats["borders"] += _rewrite(block, context, seen)
        return stats


def _rewrite(block: Block, context: PassContext,
             seen: dict[tuple[str, tuple[str, ...], str], tuple[Any, ...]]) -> int:
    out: list[Op] = []
    lowered = 0
    for op in block.ops:
        if op.name not in _ROLES or is_repeated(op):
            if op.name in _ROLES:  # pieces are chosen when the number of messages is known
                _template(op, context)
            out.append(op)
            continue
        key = (op.name, tuple(op.attrs.get("history") or ()), op.attrs["role"])
        if key not in seen:
            seen[key] = _pieces(op, context)
        prompt: Operand = op.operands[0]
        for piece in seen[key]:
            if isinstance(piece, str):
                if not piece:
                    continue
                new = Op("prompt.append", (prompt, Lit(piece)), None, (PROMPT,), (), op.loc)
            else:
                new = Op("prompt.special", (prompt,), {"token": piece.name}, (PROMPT,), (),
                         op.loc)
            out.append(new)
            prompt = new.results[0]
        context.record(op.name.partition(".")[2], op.attrs["role"], repr(piece_text(seen[key])),
                       op.loc)
        replace(op, [prompt])
        lowered += 1
    set_ops(block, out)
    return lowered


def _around_images(block: Block, context: PassContext) -> None:
    """Write the template's text around images."""
    before, mark, after = image_text(context.template)
    out: list[Op] = []
    for op in block.ops:
        if op.name != "prompt.image" or "text" in op.attrs:
            out.append(op)
            continue
        prompt, source = op.operands
        if before:
            out.append(Op("prompt.append", (prompt, Lit(before)), None, (PROMPT,), (), op.loc))
            prompt = out[-1].results[0]
        out.append(Op("prompt.image", (prompt, source), {"text": mark}, (PROMPT,), (), op.loc))
        if after:
            out.append(Op("prompt.append", (out[-1].results[0], Lit(after)), None, (PROMPT,), (),
                          op.loc))
        replace(op, [out[-1].results[0]])
    set_ops(block, out)


def is_repeated(op: Op) -> bool:
    """Whether how many messages come before the op is known at run time only."""
    return any(isinstance(role, tuple) for role in op.attrs.get("history") or ())


def _template(op: Op, context: PassContext) -> Any:
    if context.template is None:
        raise TokenError("SGLC311", "the program has chat roles, but there is no chat template",
                         place=op.loc, fixes=("give a template, or a tokenizer that has one",))
    return context.template


def _pieces(op: Op, context: PassContext) -> tuple[Any, ...]:
    template = _template(op, context)
    history = tuple(op.attrs.get("history") or ())
    side = template.open if op.name == "prompt.role_begin" else template.close
    return tuple(side(history, op.attrs["role"]))
