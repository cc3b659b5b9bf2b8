"""Which values a path of the trace need not doubt: what has been read, and what cannot fail unless
the run's own prompt does.

A value fails where a model call that it comes from failed.  Host calls that raise end the body by
themselves, so what they give is beyond doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir import types
from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.signatures import BRANCHES, CALLS, LOOPS

Mark = tuple[int, int]


class Sound:
    """read: values that would have ended the path if they had failed.  own: values that do not
    fail alone: the run's own prompt fails with them."""

    def __init__(self) -> None:
        self._read: dict[Value, None] = {}  # in order, to go back
        self._own: dict[Value, None] = {}

    def mark(self) -> Mark:
        """What `back` takes to forget what is learnt from here on."""
        return len(self._read), len(self._own)

    def back(self, mark: Mark) -> None:
        for known, size in zip((self._read, self._own), mark, strict=True):
            while len(known) > size:
                known.popitem()

    def is_read(self, value: Value) -> bool:
        return value in self._read

    def note_read(self, value: Operand) -> None:
        """The path goes on only if this value did not fail."""
        _spread(value, self._read)

    def note_own(self, prompt: Operand) -> None:
        """The run's own prompt is this one now."""
        _spread(prompt, self._own)

    def holds(self, value: Value) -> bool:
        """Whether a value is read, or does not fail alone; what it comes from likewise."""
        seen: dict[Value, None] = {}
        todo: list[Operand] = [value]
        while todo:
            at = todo.pop()
            if not isinstance(at, Value) or at in seen or at in self._read or at in self._own:
                continue
            if at.op is None:
                if not _is_given(at):
                    return False
            elif at.op.name in CALLS:
                return False
            seen[at] = None
            todo.extend(_sources(at))
        self._own.update(seen)
        return True


def _spread(value: Operand, known: dict[Value, None], region: Block | None = None) -> list[Value]:
    """Add a value and all that would have made it fail.  region: go no further than it; what comes
    from outside is added, and given back."""
    outside: list[Value] = []
    todo = [value]
    while todo:
        at = todo.pop()
        if not isinstance(at, Value) or at in known:
            continue
        known[at] = None
        op = at.op
        if region is not None and (at.owner if op is None else op.block) is not region:
            outside.append(at)
        elif op is not None and op.regions:
            todo.extend(_through(op, at.index, known))
        else:
            if op is not None and op.name in CALLS:  # its results fail together
                known.update(dict.fromkeys(op.results))
            if op is None or not _is_item(op):
                todo.extend(_sources(at))
    return outside


def _through(op: Op, index: int, known: dict[Value, None]) -> Sequence[Operand]:
    """What a result of a branch or loop fails with, whatever arm is taken and if there is no round.
    The results that fail only with it are added."""
    first = 0 if op.name in BRANCHES else len(op.operands) - 1  # the first that is not carried on
    inner: list[dict[Value, None]] = []  # what has not failed if the result has not, by region
    outside: list[list[Value]] = []
    for region, ends in _ends(op):
        inner.append({})
        outside.append(_spread(ends[index], inner[-1], region))
    if index < first and op.regions[0].args[1 + index] not in inner[0]:
        return op.operands[:1]  # the rounds before the last one, and what was carried in, are lost
    for result in op.results[first:]:
        if all(isinstance(ends[result.index], Lit) or ends[result.index] in found
               for (_, ends), found in zip(_ends(op), inner, strict=True)):
            known[result] = None
    if op.name in LOOPS:
        return [op.operands[0], *op.operands[1 + index:2 + index]] if index < first else []
    return [op.operands[0], *[v for v in outside[0] if all(v in o for o in outside[1:])]]


def _ends(op: Op) -> list[tuple[Block, Sequence[Operand]]]:
    """The regions of a branch or loop, with what they yield."""
    return [(r, r.terminator.operands) for r in op.regions if r.terminator is not None]


def _sources(value: Value) -> Sequence[Operand]:
    """The values that one may fail with."""
    op = value.op
    if op is None or OPS[op.name].effect == "host":
        return ()
    if op.name == "prompt.join" and op.attrs["mode"] == "gather_variable":
        return op.operands[:1]
    if op.regions:
        return [*op.operands, *[ends[value.index] for _, ends in _ends(op)]]
    return op.operands


def _is_item(op: Op) -> bool:
    """Whether an op takes an item out of what a loop collected: the others may have failed."""
    listed = op.operands[0] if op.operands else None
    return (op.name == "prompt.item" or op.attrs.get("fn") == "getitem") and isinstance(
        listed, Value) and listed.op is not None and listed.op.name in LOOPS


def _is_given(value: Value) -> bool:
    """Whether a block's argument is one of the program's, or the number of a round."""
    block = value.owner
    return isinstance(getattr(block, "parent", None), Program) or (
        value.index == 0 and value.type == types.INT)
