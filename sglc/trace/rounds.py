"""What tracing one round of a loop keeps: while it goes on, of the round, and of the loop.

How rounds are traced is in `loops.py`, what they become in `loop_ops.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sglc.ir import types
from sglc.ir.module import Block, Operand, Value
from sglc.trace.breaks import NotMergeable
from sglc.trace.groups import LoopGroup
from sglc.trace.state import TraceState
from sglc.trace.symbols import Partial, Sym

Key = tuple[Any, ...]  # ("prompt", state) ("count", state) ("variable", state, name) ("local", k)
Get = Callable[[], tuple[Any, ...]]  # reads the locals that a loop assigns
Put = Callable[[tuple[Any, ...]], None]  # sets them


@dataclass(eq=False, slots=True)
class Frame:
    """A loop whose round is being traced.  children: the states of forks that it goes through.
    shared: lists that something else than a local holds; built: those that it appends to, and
    what."""

    number: Value
    size: Sym
    depth: int
    shared: set[int]
    children: dict[LoopGroup, TraceState] = field(default_factory=dict)
    built: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)


class Growing(Partial):
    """A list that every round of a loop appends to: what it holds then is not known."""

    __slots__ = ("frame",)

    def __init__(self, session: Any, frame: Frame) -> None:
        super().__init__(session)
        self.frame = frame

    def append(self, value: Any) -> None:
        session = self._session
        if session.frames[-1] is not self.frame or session.depth != self.frame.depth:
            raise NotMergeable
        self.frame.built.setdefault(id(self), (self, []))[1].append(value)

    def refuse(self, *args: Any) -> Any:
        raise self._session.broken(
            "SGLC110", "a list is read in the loop that appends to it, whose length is known at "
            "run time only")

    __bool__ = __len__ = __iter__ = __getitem__ = __call__ = __contains__ = refuse
    __add__ = __radd__ = __mul__ = __eq__ = __lt__ = __gt__ = refuse  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = __hash__ = __index__ = refuse  # type: ignore[assignment]


@dataclass(slots=True)
class Round:
    """One traced round.  args: of its region, by what they carry.  ends: what a key is at the
    end.  lost: what changes and can be seen neither by the next round nor behind the loop.
    waits: what was read; built: by local, what was appended to a list.  turns: the roles of the
    messages that it adds to a state."""

    block: Block
    args: dict[Key, Value]
    ends: dict[Key, Any]
    lost: set[Key]
    children: dict[LoopGroup, tuple[dict[str, Any], dict[str, Any]]]  # fields at first, at last
    waits: list[Value]
    built: list[tuple[int, Operand]]
    turns: dict[int, tuple[str, ...]]


@dataclass(slots=True)
class Loop:
    """What a recorded loop leaves: results by key, and what of the rest is lost."""

    results: dict[Key, Value]
    lost: set[Key]
    left: dict[Key, Value]
    waits: list[Value]
    built: dict[int, Value]  # by local
    turns: dict[int, tuple[str, ...]]  # state -> roles of the messages of each round
    children: list[tuple[int, dict[str, Any]]]  # group -> its new fields


def turns_between(first: tuple[Any, Any], last: tuple[Any, Any]) -> tuple[str, ...]:
    """The roles of the messages that a round adds; each must be closed in it."""
    (before, opened), (after, still_open) = first, last
    added = after[len(before):]
    if opened or still_open or after[: len(before)] != before or not all(
            isinstance(role, str) for role in added):
        raise NotMergeable
    return added


def _references(get: Get) -> list[tuple[Any, int]]:
    return [(v, sys.getrefcount(v)) for v in get()]


def shared_lists(get: Get) -> set[int]:
    """The lists among locals that something else holds too, by identity."""
    alone: list[Any] = []
    ((_, least),) = _references(lambda: (alone,))
    return {id(v) for v, references in _references(get)
            if type(v) is list and references > least}


def carried_type(value: Any) -> types.Type | None:
    """The type of a value that a loop can carry or collect; None if it cannot."""
    if isinstance(value, Sym):
        return types.TEXT if value.is_text else value.type
    if isinstance(value, (str, int, float)) or value is None:
        return types.of_literal(value)
    return None
