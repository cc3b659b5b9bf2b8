"""What is appended to a prompt while tracing: each part becomes an operation of the IR.

Knows the place of a prompt in the trace (its operand, its path, its messages), not what becomes of
the values that gens and selects make (see `state.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglc.ir import types
from sglc.ir.module import Lit, Operand, Value
from sglc.lang.expressions import (
    Bag,
    Gen,
    Image,
    RoleBegin,
    RoleEnd,
    Select,
    SpecialToken,
    check_part,
)
from sglc.lang.prompt_surface import PromptSurface, RoleTracker
from sglc.trace.frozen import Frozen
from sglc.trace.symbols import Sym, TypedGen

if TYPE_CHECKING:
    from sglc.trace.session import Session


class TracePrompt(PromptSurface):
    """A prompt being traced, as far as a body adds to it."""

    __slots__ = ("_begin", "_calls", "_closed", "_observable", "_offset", "_path", "_prompt",
                 "_read_only", "_roles", "_session", "_shifts")

    def __init__(self, session: Session, prompt: Operand, path: tuple[int, ...] = (), *,
                 observable: bool = False, roles: RoleTracker | None = None,
                 begin: Operand | None = None,
                 closed: Sequence[tuple[str, Operand, Operand]] = (),
                 shifts: Sequence[tuple[int, Operand]] = ()) -> None:
        self._session = session
        self._prompt = prompt
        self._path = path
        self._observable = observable
        self._roles = roles or RoleTracker()
        self._begin = begin  # of the open message's content
        self._closed = list(closed)  # messages: role, begin and end of the content
        self._calls = 0
        self._offset: Operand | None = None  # calls beside `_calls`, known at run time
        self._shifts = tuple(shifts)  # what is added to numbers of the path, by position
        self._read_only = False

    @abstractmethod
    def _define(self, name: Any, value: Any, operand: Operand | None = None,
                meta: Operand | None = None) -> None:
        """The variable `name` becomes `value`."""

    def count_calls(self) -> None:
        """Make the number of calls one value, if it is known at run time only."""
        if self._offset is not None and self._calls:
            self._offset = self._session.emit(
                "prompt.compute", (self._offset, Lit(self._calls)), {"fn": "add"},
                (types.INT,)).results[0]
            self._calls = 0

    def repeat(self, roles: tuple[str, ...], count: Operand) -> None:
        """There have been messages of these roles, as often as `count` says."""
        self._roles = RoleTracker((*self._roles.closed, Repeated(roles, count)),  # type: ignore
                                  self._roles.open)

    # -- parts ----------------------------------------------------------------------------
    def _add(self, part: Any) -> None:
        session = self._session
        if self._read_only:
            raise session.broken("SGLC110", "one state of a fork of run-time size goes on alone")
        if isinstance(part, str):
            if part:
                self._step("prompt.append", Lit(part))
        elif isinstance(part, Gen):
            self._gen(part)
        elif isinstance(part, Select):
            self._select(part)
        elif isinstance(part, RoleBegin):
            history, counts = _history(self._roles.begin(part.role))
            self._step("prompt.role_begin", *counts, role=part.role, history=history)
            self._begin = self._prompt
        elif isinstance(part, RoleEnd):
            history, counts = _history(self._roles.end(part.role))
            end, begin = self._prompt, self._begin
            self._step("prompt.role_end", *counts, role=part.role, history=history)
            assert begin is not None
            self._closed.append((part.role, begin, end))
            self._begin = None
            if self._observable:
                session.emit("prompt.message", (begin, end), {"role": part.role})
        elif isinstance(part, SpecialToken):
            self._step("prompt.special", token=part.name)
        elif isinstance(part, Image):
            self._step("prompt.image", session.image_operand(part.source))
        elif isinstance(part, Bag):
            if part.parts:
                self._step("prompt.bag", *[session.text_operand(p)
                                           for p in (part.separator, *part.parts)])
        elif isinstance(part, Sym):
            if part.type in (types.INT, types.FLOAT, types.BOOL):
                check_part(part.example)  # the same error as for a plain number
            self._step("prompt.append", session.text_operand(part))
        else:
            raise session.broken("SGLC111", f"a {type(part).__name__} is appended to a prompt",
                                 raises=True)

    def _step(self, op: str, *operands: Operand, **attrs: Any) -> None:
        self._prompt = self._session.emit(op, (self._prompt, *operands), attrs,
                                          (types.PROMPT,)).results[0]

    def _next_path(self) -> tuple[int, ...]:
        path = (*self._path, self._calls)
        self._calls += 1
        return path

    def _offset_operand(self, attrs: dict[str, Any]) -> tuple[Operand, ...]:
        """What is added to numbers of the path at run time, if anything."""
        shifts = self._shifts
        if self._offset is not None:
            shifts = (*shifts, (len(self._path), self._offset))
        if shifts:
            attrs["offset"] = tuple(position for position, _ in shifts)
        return tuple(operand for _, operand in shifts)

    def _gen(self, part: Gen) -> None:
        session = self._session
        given = part.params.given()
        n = given.get("n", 1)
        value_type = types.TEXT if n == 1 else types.list_of(types.TEXT)
        attrs = {**given, "path": self._next_path()}
        if part.reader is not None:
            value_type = types.ANY
            attrs["reader"] = session.reader(part.reader)
        if part.name is not None:
            attrs["name"] = part.name
        offset = self._offset_operand(attrs)
        op = session.emit("prompt.gen", (self._prompt, *offset), attrs,
                          (types.PROMPT, value_type, types.META), ("", part.name or "", ""))
        self._prompt = op.results[0]
        value: Any = Sym(session, op.results[1], value_type)
        if part.reader is not None:
            value = TypedGen(op.results[1], part.reader.type_name, n)
        elif n > 1:
            value = self._samples(op.results[1], n, types.TEXT)
        self._define(part.name, value, op.results[1], op.results[2])

    def _samples(self, values: Value, n: int, type_: types.Type) -> Frozen:
        """The list of the values of `n` samples."""
        session = self._session
        items = [Sym(session, session.emit("prompt.compute", (values, Lit(i)), {"fn": "getitem"},
                                           (type_,)).results[0], type_) for i in range(n)]
        return Frozen(session, list, items, None, "the samples of a gen")

    def _select(self, part: Select) -> None:
        session = self._session
        choices = [session.text_operand(c) for c in part.choices]
        plain = [c for c in part.choices if isinstance(c, str)]
        type_ = types.choice(*plain) if len(plain) == len(choices) else types.TEXT
        attrs: dict[str, Any] = {"path": self._next_path(), "method": part.method}
        if part.name is not None:
            attrs["name"] = part.name
        offset = self._offset_operand(attrs)
        op = session.emit("prompt.select", (self._prompt, *choices, *offset), attrs,
                          (types.PROMPT, type_, types.SCORES), ("", part.name or "", ""))
        self._prompt = op.results[0]
        self._define(part.name, Sym(session, op.results[1], type_), op.results[1], op.results[2])


@dataclass(frozen=True, slots=True)
class Repeated:
    """Roles of messages that a loop of run-time length adds in each round."""

    roles: tuple[Any, ...]
    count: Operand


def _history(closed: Sequence[Any]) -> tuple[tuple[Any, ...], list[Operand]]:
    """The `history` attribute of a role's op, and the operands that say how often its lists
    are repeated."""
    return (tuple(h.roles if isinstance(h, Repeated) else h for h in closed),
            [h.count for h in closed if isinstance(h, Repeated)])
