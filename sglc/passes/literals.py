"""Evaluating pure operations on literals, exactly as Python would at run time.

Where Python would raise, or the answer could be huge, or a literal's Python type is not certain
(a tuple literal may stand for a list), there is no answer and the op stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir import compute
from sglc.ir.module import Attr, Lit, Operand, Value

_GROWS = frozenset({"pow", "repeat", "mul", "text.zfill", "text.ljust", "text.rjust",
                    "text.center", "text.expandtabs", "text.format"})
_LARGE = 1000  # operands of growing functions stay below this
_RESULTS: dict[str, type | tuple[type, ...]] = {
    "text": str, "bool": bool, "int": int, "float": float,
    "any": (str, bool, int, float, type(None)), "json": (str, bool, int, float, type(None)),
}


class Unknown(Exception):
    """The op has no literal value here."""


def scalar(operand: Operand) -> Attr:
    """The Python value of a literal operand; raises Unknown if there is no certain one."""
    if isinstance(operand, Value) or isinstance(operand.value, (tuple, list, dict)):
        raise Unknown
    return operand.value


def compute_value(fn: str, operands: Sequence[Operand], result_type: str) -> Lit:
    """The value of `prompt.compute {fn}` on literals of a result of the declared type."""
    values = [scalar(o) for o in operands]
    if not compute.known(fn) or result_type not in _RESULTS:
        raise Unknown
    if fn in _GROWS and any(
            (isinstance(v, (int, float)) and abs(v) > _LARGE)
            or (isinstance(v, str) and len(v) > _LARGE) for v in values):
        raise Unknown
    if fn == "text.format":
        raise Unknown  # a width in the text is as good as unbounded
    try:
        value = compute.function(fn)(*values)
    except Exception:
        raise Unknown from None
    expected = _RESULTS[result_type]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise Unknown
    return Lit(value)


def format_part(part: tuple[int, str, str], operands: Sequence[Operand]) -> str:
    """The text of one part of a `prompt.format` on a literal."""
    index, conversion, spec = part
    value = scalar(operands[index])
    if sum(c.isdigit() for c in spec) > 3:
        raise Unknown
    try:
        return compute.run_format(((0, conversion, spec),), (value,))
    except Exception:
        raise Unknown from None


def chain_text(end: Operand, begin: Operand | None = None) -> str:
    """The text of a prompt from `begin` (None: its root) to `end`, if all of it is literal."""
    parts: list[str] = []
    at = end
    while at is not begin:
        op = at.op if isinstance(at, Value) else None
        if op is None:
            raise Unknown
        if op.name in ("prompt.root", "kv.root"):
            if begin is not None:
                raise Unknown
            break
        if op.name == "prompt.append" and isinstance(op.operands[1], Lit):
            parts.append(op.operands[1].value)
        elif op.name not in ("prompt.special", "kv.special"):
            raise Unknown
        at = op.operands[0]
    parts.reverse()
    return "".join(parts)


def branch_taken(name: str, labels: Sequence[str], predicate: Lit) -> int:
    """Which region of an `if` or `switch` a literal predicate takes."""
    value = scalar(predicate)
    if name == "prompt.if":
        return 0 if value else 1
    if not isinstance(value, str):
        raise Unknown
    if value in labels:
        return list(labels).index(value)
    if "default" in labels:
        return list(labels).index("default")
    raise Unknown
