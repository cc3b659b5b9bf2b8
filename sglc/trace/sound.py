"""Which values a path of the trace need not doubt: what has been read, and what cannot fail unless
the run's own prompt does.

A value fails where a model call that it comes from failed.  Host calls that raise end the body by
themselves, so what they give is beyond doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir import types
from sglc.ir.module import Operand, Program, Value
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


def _spread(value: Operand, known: dict[Value, None]) -> None:
    """Add a value and all that would have made it fail."""
    todo = [value]
    while todo:
        at = todo.pop()
        if not isinstance(at, Value) or at in known:
            continue
        known[at] = None
        if at.op is not None and at.op.name in CALLS:  # its results fail together
            known.update(dict.fromkeys(at.op.results))
        todo.extend(_sources(at))


def _sources(value: Value) -> Sequence[Operand]:
    """The values that one fails with."""
    op = value.op
    if op is None or OPS[op.name].effect == "host":
        return ()
    if op.name == "prompt.join" and op.attrs["mode"] == "gather_variable":
        return op.operands[:1]
    if op.name in BRANCHES or op.name in LOOPS:
        ends = [r.terminator for r in op.regions]
        return [*op.operands, *[e.operands[value.index] for e in ends if e is not None]]
    return op.operands


def _is_given(value: Value) -> bool:
    """Whether a block's argument is one of the program's, or the number of a round."""
    block = value.owner
    return isinstance(getattr(block, "parent", None), Program) or (
        value.index == 0 and value.type == types.INT)
