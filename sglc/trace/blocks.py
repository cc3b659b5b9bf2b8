"""Hooks for statements with blocks: `for`, `if`, `with`, `try`.

A loop or branch is Python's own while tracing, unless the trace takes it whole; a `try` statement
is one host call (see `outline.py`).  How loops and arms become IR is for the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglc.errors import Place
from sglc.ir import types
from sglc.lang.expressions import Expr
from sglc.lang.prompt_surface import RoleScope
from sglc.trace.breaks import GraphBreak
from sglc.trace.changes import Changes
from sglc.trace.guards import MISSING
from sglc.trace.hosts import FromOutside, ReadState, itself
from sglc.trace.outline import Outlined, bound, run_outlined
from sglc.trace.primitives import is_module, makes_prompts
from sglc.trace.regions import UNBOUND
from sglc.trace.symbols import Sym
from sglc.trace.values import kind_of, traced


class Blocks(Changes):
    """The hooks for loops, branches, `with` and `try`."""

    statements: list[tuple[Outlined, Callable[..., Any]]]

    def loop(self, items: Any, body: Callable[[Any], None], get: Callable[[], tuple[Any, ...]],
             put: Callable[[tuple[Any, ...]], None], own: tuple[int, ...]) -> None:
        """A `for` whose rounds are calls, in traces of any length."""
        seq = self.session.sequence(items)
        if seq is not None:
            self.session.run_loop(seq, body, get, put, own)
            return
        for item in self.iterate(items):
            body(item)

    def mapped(self, items: Any, fn: Callable[[Any], Any]) -> Any:
        """A list comprehension, likewise."""
        seq = self.session.sequence(items)
        if seq is not None:
            return self.session.collect(seq, fn)
        return [fn(item) for item in self.iterate(items)]

    def branch(self, test: Any, then: Callable[[], None], otherwise: Callable[[], None],
               get: Callable[[], tuple[Any, ...]], put: Callable[[tuple[Any, ...]], None]) -> None:
        """An `if` whose arms are functions of the locals that they assign."""
        session = self.session
        test = self._truth_of(test)
        if isinstance(test, Sym) and (test.recipe is None or test.example is MISSING):
            if test.type != types.BOOL:
                test = session.compute("bool", test)
            if session.branch(test, then, otherwise, get, put):
                return
        if session.truth(test):
            then()
        else:
            otherwise()

    def local(self, get: Callable[[], Any]) -> Any:
        """A local of the body, for `branch`; UNBOUND if it is not bound."""
        try:
            return get()
        except NameError:
            return UNBOUND

    def context(self, manager: Any) -> Any:
        if traced(manager) or isinstance(manager, RoleScope):
            return manager
        raise self.session.broken(
            "SGLC111", f"the tracer cannot follow a with block on {kind_of(manager)}",
            fixes=("move the block into a function: its call is recorded, and made at run time",))

    # -- try ------------------------------------------------------------------------------
    def outlined(self, number: int, *given: tuple[str, Callable[[], Any]]) -> Any:
        """A `try` statement, as one host call over the variables it reads."""
        statement, function = self.statements[number]
        names: list[str] = []
        values: list[Any] = []
        for name, get in given:
            try:
                value = get()
            except NameError:  # not bound yet
                continue
            if traced(value):
                keys = statement.reads.get(name)
                if keys is None or not hasattr(value, "get_var"):
                    raise GraphBreak("SGLC111", "a prompt state is used inside try",
                                     place=Place(self.fn.__code__.co_filename,
                                                 *statement.first_use(name)),
                                     fixes=("move what uses it out of the try",))
                value = ReadState({k: value.unread(k) for k in keys})
            elif isinstance(value, Expr):
                raise self.session.broken(
                    "SGLC113", f"a {type(value).__name__} of the program's own is used inside try")
            self.hand(value)
            names.append(name)
            values.append(value)
        for name in statement.outside:
            self._check_try(statement, name, self.fn.__globals__.get(name))
        for name in statement.closure:
            cell = self.cells[name]
            self._check_try(statement, name, cell.cell_contents)
            names.append(name)
            values.append(FromOutside(lambda c=cell: c.cell_contents))  # type: ignore[misc]
        result = self.session.host("try", run_outlined, function, tuple(names), *values)
        self.session.unsure[result.operand] = statement.unsure(names)
        return result

    def _check_try(self, statement: Outlined, name: str, value: Any) -> None:
        if makes_prompts(value) and not is_module(value):
            raise GraphBreak(
                "SGLC111", f"{name}, which builds prompts, is used inside try",
                place=Place(self.fn.__code__.co_filename, *statement.first_use(name)),
                fixes=("move what uses it out of the try",))

    def bound(self, result: Any, name: str) -> Any:
        value = self.session.host("variable", bound, result, name)
        if name in self.session.unsure.get(result.operand, ()):
            self.session.unbound.add(value.operand)
        return value

    def checked(self, value: Any) -> Any:
        """A variable that a `try` may have left unbound: Python's error where it is read."""
        if isinstance(value, Sym) and value.operand in self.session.unbound:
            self.session.host("variable", itself, value)
            self.session.unbound.discard(value.operand)
        return value
