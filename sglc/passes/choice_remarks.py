"""The remark SGLC421: a generation's text is compared with one that its constraint rules out."""

from __future__ import annotations

from collections.abc import Iterator

from sglc.errors import Diagnostic
from sglc.ir.module import Lit, Op, Program
from sglc.passes.base import PassContext
from sglc.passes.constraints import GENS
from sglc.passes.refine_choices import few_texts

_MOST = 64  # texts of a constraint that is looked at
_SHOWN = 5  # of them in a message
_ALWAYS = {"eq": "false", "pick_equal": "false", "ne": "true", "pick_unequal": "true"}


def ruled_out(program: Program, context: PassContext) -> Iterator[Diagnostic]:
    """A remark for each comparison that always comes out the same."""
    for op in program.walk():
        if op.name not in GENS or not any(_compared(u) is not None for u in op.results[1].uses):
            continue
        texts = few_texts(op, _MOST, context)
        if not texts or op.attrs.get("n") not in (None, 1):
            continue
        for user in dict.fromkeys(op.results[1].uses):
            other = _compared(user)
            # A text that was cut short is the beginning of one.
            if other is None or any(t.startswith(other) for t in texts):
                continue
            name = f'the gen "{op.attrs["name"]}"' if op.attrs.get("name") else "a gen"
            shown = ", ".join([repr(t) for t in texts[:_SHOWN]])
            more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
            yield Diagnostic(
                "SGLC421", f"{name} is never {other!r}", user.loc,
                f"its constraint allows = {len(texts)} "
                f"text{'s' if len(texts) > 1 else ''}: {shown}{more}",
                f"the comparison is always {_ALWAYS[user.attrs['fn']]}",
                ("compare with a text of the constraint", "let the constraint allow this one"))


def _compared(user: Op) -> str | None:
    """The text that a comparison compares with."""
    if user.name != "prompt.compute" or user.attrs["fn"] not in _ALWAYS:
        return None
    for operand in user.operands[:2]:
        if isinstance(operand, Lit) and isinstance(operand.value, str):
            return operand.value
    return None
