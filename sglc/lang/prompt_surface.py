"""How a program writes into a prompt state, eager or traced: `+=`, roles as calls and blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from sglc.errors import LanguageError
from sglc.lang.expressions import Concat, RoleBegin, RoleEnd, check_part, message


class PromptSurface(ABC):
    """The part of a prompt state that only builds expressions: `+=`, roles, scopes."""

    __slots__ = ()

    @abstractmethod
    def _add(self, part: Any) -> None:
        """Add a text or an expression; called once for each, in order."""

    def __iadd__(self, other: Any) -> PromptSurface:
        check_part(other)
        if isinstance(other, Concat):
            for part in other.parts:
                self._add(part)
        else:
            self._add(other)
        return self

    def __add__(self, other: Any) -> Any:
        raise LanguageError("SGLC002", "`s + ...` appends nothing to the prompt",
                            fixes=["write s += ..."])

    def append(self, other: Any) -> PromptSurface:
        """The same as `s += other`, for use where no assignment can stand."""
        return self.__iadd__(other)

    def system(self, expr: Any = None) -> Any:
        """Add a system message, or open one: `with s.system(): ...`."""
        return self._role("system", expr)

    def user(self, expr: Any = None) -> Any:
        """Add a user message, or open one: `with s.user(): ...`."""
        return self._role("user", expr)

    def assistant(self, expr: Any = None) -> Any:
        """Add an assistant message, or open one: `with s.assistant(): ...`."""
        return self._role("assistant", expr)

    def _role(self, role: str, expr: Any) -> Any:
        if expr is None:
            return RoleScope(self, role)
        self.__iadd__(message(role, expr))
        return self


class RoleScope:
    """`with s.user():` — opens a message, and closes it at the end of the block."""

    __slots__ = ("role", "state")

    def __init__(self, state: PromptSurface, role: str) -> None:
        self.state = state
        self.role = role

    def __enter__(self) -> PromptSurface:
        self.state._add(RoleBegin(self.role))
        return self.state

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is None:
            self.state._add(RoleEnd(self.role))


class RoleTracker:
    """Which message is open and which came before, on one prompt state.

    begin/end return the roles closed before, and raise LanguageError SGLC007 for a nested or
    unopened role.
    """

    __slots__ = ("closed", "open")

    def __init__(self, closed: tuple[str, ...] = (), open_: str | None = None) -> None:
        self.closed = closed
        self.open = open_

    def begin(self, role: str) -> tuple[str, ...]:
        if self.open is not None:
            raise LanguageError(
                "SGLC007",
                f"{_article(role)} message is opened inside {_article(self.open)} message",
                fixes=[f"end the {self.open} message first"])
        self.open = role
        return self.closed

    def end(self, role: str) -> tuple[str, ...]:
        if self.open != role:
            inside = f"inside {_article(self.open)} message" if self.open else "while none is open"
            raise LanguageError("SGLC007", f"{_article(role)} message is closed {inside}",
                                fixes=["pair every role_begin with its role_end"])
        before = self.closed
        self.closed = (*before, role)
        self.open = None
        return before

    def copy(self) -> RoleTracker:
        return RoleTracker(self.closed, self.open)


def _article(role: str) -> str:
    return f"{'an' if role[:1] in 'aeio' else 'a'} {role}"
