"""The compiled constraints of generations, as the run will have them.

Compiled constraints are kept with the tokenizer, so what is compiled here is not compiled again
when the program runs.  Knows generations by their attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglc.config import DTYPES
from sglc.errors import SglcError
from sglc.ir.module import Op

if TYPE_CHECKING:
    from sglc.grammar.constraint import Constraint
    from sglc.tokens.tokenizer import Tokenizer

GENS = frozenset(("prompt.gen", "kv.decode"))


def constrained(op: Op) -> dict[str, Any]:
    """What binds a generation, as a keyword of `grammar.compile`; nothing if it is free."""
    attrs = op.attrs
    if attrs.get("dtype") is not None:
        return {"regex": DTYPES[attrs["dtype"]][0]}
    for name, keyword in (("regex", "regex"), ("json_schema", "json_schema"),
                          ("ebnf", "grammar")):
        if attrs.get(name) is not None:
            return {keyword: attrs[name]}
    return {}


def stops(op: Op) -> tuple[str, ...]:
    """The stop strings that a generation names, and those of its dtype."""
    own: tuple[str, ...] = op.attrs.get("stop") or ()
    dtype = op.attrs.get("dtype")
    return own if dtype is None else own + DTYPES[dtype][1]


def compiled(op: Op, tokenizer: Tokenizer) -> Constraint | None:
    """The constraint of a generation; None if it is free, or the constraint is an error, which
    the run reports where the program gets there."""
    what = constrained(op)
    if not what:
        return None
    from sglc import grammar

    try:
        return grammar.compile(**what, tokenizer=tokenizer)
    except SglcError:
        return None
