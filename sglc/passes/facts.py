"""Facts about single operations that several passes rely on.

Nothing here looks at more than one operation and what its regions hold.
"""

from __future__ import annotations

from collections.abc import Iterator

from sglc.ir.module import Block, Lit, Module, Op, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.signatures import BRANCHES, CALLS

__all__ = ["BRANCHES", "CALLS", "all_inputs", "blocks", "blocks_of", "is_call",
           "is_finished", "is_mergeable", "is_ordered", "is_pure", "is_total"]

_PLAIN = frozenset({"text", "choice", "bool", "int", "float"})
_TEXTS = frozenset({"text", "choice"})
_NUMBERS = frozenset({"bool", "int", "float"})
_IMAGES = frozenset({"prompt.image", "kv.image"})

# Never raise on plain values.
_SAFE_ON_PLAIN = frozenset({"eq", "ne", "not", "bool", "str", "repr", "is_none", "pick",
                             "pick_equal", "pick_unequal"})
# Never raise if all operands are texts (and there are as many as the method takes).
_SAFE_ON_TEXTS = frozenset({
    "concat", "contains", "len", "lt", "le", "gt", "ge",
    *(f"text.{m}" for m in (
        "strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold",
        "swapcase", "replace", "removeprefix", "removesuffix", "startswith", "endswith",
        "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower", "isnumeric",
        "isdecimal", "istitle", "isascii", "isidentifier", "isprintable", "find", "rfind",
        "count", "splitlines")),
})
_SAFE_ON_NUMBERS = frozenset({"lt", "le", "gt", "ge"})


def is_call(op: Op) -> bool:
    return op.name in CALLS


def is_pure(op: Op) -> bool:
    """Whether the op only computes a value (which may still raise, see `is_total`)."""
    return OPS[op.name].pure and not op.regions


def is_total(op: Op) -> bool:
    """Whether a pure op can neither raise nor run the user's code (`__str__`, `__eq__`).

    Only such an op may be dropped when unused, or computed where it was not before.
    """
    if op.name == "prompt.format":
        return all(isinstance(p, str) or (not p[2] and op.operands[p[0]].type.name in _PLAIN)
                   for p in op.attrs["parts"])
    if op.name == "prompt.compute":
        fn = op.attrs["fn"]
        kinds = {o.type.name for o in op.operands}
        return ((fn in _SAFE_ON_PLAIN and kinds <= _PLAIN)
                or (fn in _SAFE_ON_TEXTS and kinds <= _TEXTS)
                or (fn in ("add", "sub") and kinds <= {"int"})
                or (fn in _SAFE_ON_NUMBERS and kinds <= _NUMBERS))
    return op.name not in _IMAGES  # which reads a file


def is_mergeable(op: Op) -> bool:
    """Whether equal occurrences of this pure op always have the same value.

    Opaque values may be changed between two reads by the user's code, so ops on them stay apart.
    """
    if op.name in ("prompt.list", "prompt.fork"):
        return False
    if op.name in _IMAGES:
        return isinstance(op.operands[1], Lit) or op.operands[1].type.name in _PLAIN
    if op.name in ("prompt.format", "prompt.compute"):
        return all(isinstance(o, Lit) or o.type.name in _PLAIN for o in op.operands)
    return True


def is_ordered(op: Op) -> bool:
    """Whether the op must keep its place among the ordered ops of its block: it observes, calls
    the user's code, or may raise (and so decides whether later ordered ops happen)."""
    effect = OPS[op.name].effect
    if effect in ("observe", "host"):
        return True
    if op.regions:
        return any(is_ordered(inner) for region in op.regions for inner in region.ops)
    return effect == "none" and not is_total(op)


def is_finished(program: Program) -> bool:
    """Whether liveness has placed releases: ops on prompts may no longer move or merge."""
    return any(op.name == "kv.release" for op in program.walk())


def all_inputs(program: Program) -> dict[Op, list[Value]]:
    """For each op: the values from outside that it reads, itself or in its regions (with
    repetitions)."""
    found: dict[Op, list[Value]] = {}
    for block in blocks_of(program):
        for op in block.ops:
            read = [o for o in op.operands if type(o) is Value]
            for region in op.regions:
                inside = set(region.args)
                inner: list[Value] = []
                for o in region.ops:
                    inside.update(o.results)
                    inner.extend(found[o])
                read.extend([v for v in inner if v not in inside])
            found[op] = read
    return found


def blocks(module: Module) -> Iterator[Block]:
    """All blocks, inner ones before the block around them."""
    for program in module.programs.values():
        yield from blocks_of(program)


def blocks_of(program: Program) -> Iterator[Block]:
    yield from _inner(program.body)


def _inner(block: Block) -> Iterator[Block]:
    for op in list(block.ops):
        for region in op.regions:
            yield from _inner(region)
    yield block
