"""How the op table is read: classes of operands and results, and what types they admit.

Knows the table's notation and the types; programs and values only by their types.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir import types
from sglc.ir.module import Op, Operand
from sglc.ir.ops import OPS, OpDef
from sglc.ir.types import Type

MAX_REGIONS = 100
"""How deep regions may nest: a bound that keeps every recursion over blocks safe."""

PROMPTS = frozenset(("prompt", "kv"))
"""Type names of prompt-like values."""

ADMITS: dict[str, frozenset[str]] = {
    "prompt": PROMPTS,
    "text": frozenset(("text", "choice")),
    "value": frozenset(types.NAMES),
    **{name: frozenset((name,)) for name in ("kv", "ids", "meta", "scores")},
}
"""Class name -> type names."""

INFERRED: dict[str, Type] = {
    "prompt": types.PROMPT, "kv": types.KV, "text": types.TEXT, "ids": types.IDS,
    "meta": types.META, "scores": types.SCORES,
}
"""Result class -> the type that the text form leaves out; "value" has none."""

CHAINS = frozenset(
    d.name for d in OPS.values()
    if d.operands and d.results and d.operands[0] in PROMPTS
    and d.results[0].rstrip("*") in PROMPTS)
"""Ops whose prompt results continue their first operand."""

ROOTS = frozenset(("prompt.root", "kv.root"))
BRANCHES = frozenset(("prompt.if", "prompt.switch"))
"""Ops of whose regions exactly one runs."""
LOOPS = frozenset(("prompt.for", "prompt.map"))
"""Ops whose one region runs any number of times."""
YIELDING = BRANCHES | {"plan.issue", "plan.group"}
"""Ops whose results are what their regions yield."""
CALLS = frozenset(("prompt.gen", "prompt.select", "kv.decode", "kv.score"))
"""Ops that call the model."""


def offsets(op: Op) -> tuple[int, ...]:
    """Where in a call's path its last operands, as many, are added."""
    given = op.attrs.get("offset", ())
    return given if type(given) is tuple else ()


def awaited(op: Op) -> Sequence[Operand]:
    """The operands that must be there for an op to happen: not the prompt that is kept if it
    raises."""
    if op.name == "prompt.read":
        return op.operands[1:]
    return op.operands[:-1] if op.attrs.get("root") else op.operands


def class_at(classes: Sequence[str], index: int) -> str | None:
    """The class of the operand or result at `index`, None if there is none."""
    if index < len(classes):
        return classes[index].rstrip("*")
    if classes and classes[-1].endswith("*"):
        return classes[-1][:-1]
    return None


def count_text(classes: Sequence[str]) -> str:
    """How many operands or results these classes mean: "2", "1 or more"."""
    if classes and classes[-1].endswith("*"):
        return f"{len(classes) - 1} or more"
    return str(len(classes))


def count_fits(classes: Sequence[str], count: int) -> bool:
    if classes and classes[-1].endswith("*"):
        return count >= len(classes) - 1
    return count == len(classes)


def terminator_of(op: OpDef) -> str:
    """The op that ends the regions of `op`."""
    return "plan.yield" if op.name.startswith("plan.") else "prompt.yield"


def type_problem(t: Type) -> str | None:
    """What is wrong with a type itself, None if nothing."""
    depth = 0
    while t.name == "list":
        depth += 1
        if len(t.args) != 1 or not isinstance(t.args[0], Type) or depth > 64:
            return "!list takes one type" if depth <= 64 else "!list is nested too deep"
        t = t.args[0]
    if t.name not in types.NAMES:
        return f"unknown type !{t.name}"
    if t.name == "choice":
        if not t.args or not all(isinstance(a, str) for a in t.args):
            return "!choice takes one or more texts"
        if len(set(t.args)) < len(t.args):
            return "the texts of a !choice must be distinct"
        return None
    return f"!{t.name} takes no arguments" if t.args else None


def fits(source: Type, target: Type) -> bool:
    """Whether a value of type `source` may stand where `target` is promised (yield -> result)."""
    if source == target:
        return True
    if source.name in PROMPTS or target.name in PROMPTS:
        return False
    if target.name == "any":
        return True
    if target.name == "json":
        return source.name in ("bool", "int", "float", "text", "choice", "list")
    if target.name == "text":
        return source.name == "choice"
    if target.name == "choice":
        return source.name == "choice" and set(source.args) <= set(target.args)
    if target.name == "list":
        return source.name == "list" and fits(source.args[0], target.args[0])  # type: ignore[arg-type]
    return False
