"""Hooks for functions inside a program, coroutines, and errors that the program raises."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from sglc.errors import Place
from sglc.trace.bindings import Bindings
from sglc.trace.breaks import PathEnd
from sglc.trace.hosts import Built
from sglc.trace.nested import Nested, maker
from sglc.trace.primitives import makes_prompts
from sglc.trace.scopes import Names


class Coroutine:
    """What calling an `async def` of the program gives: it runs where it is awaited."""

    __sglc_traced__ = True

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run


class CoroutineFunction:
    """An `async def` inside a program."""

    __sglc_traced__ = True

    def __init__(self, fn: FunctionType) -> None:
        self.fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine:
        return Coroutine(lambda: self.fn(*args, **kwargs))


class Functions(Bindings):
    """The hooks for functions, `await` and `raise`."""

    nested: tuple[Nested, ...]
    names: Names

    def function(self, number: int, fn: FunctionType) -> FunctionType:
        """A function or lambda of the body; number: which of them."""
        fn.__sglc_nested__ = number  # type: ignore[attr-defined]
        return fn

    def coroutine(self, number: int, fn: FunctionType) -> CoroutineFunction:
        """An `async def` of the body."""
        return CoroutineFunction(fn)

    def awaited(self, value: Any) -> Any:
        """`await value`."""
        if isinstance(value, Coroutine):
            return value.run()
        return self.session.awaited(self.now(value))

    def live(self, fn: FunctionType) -> Built:
        """A function of the body for a host call: with its own code, over run-time values."""
        session = self.session
        source = self.nested[fn.__sglc_nested__]  # type: ignore[attr-defined]
        name = fn.__name__
        if source.changes:
            raise session.broken("SGLC113", f"{name}(), which assigns variables of the program, "
                                            "is handed to Python that is not traced")
        closure = fn.__code__.co_freevars
        code = source.code(self.fn.__code__.co_filename,
                           tuple({*source.free} & {*closure, *self.cells}))
        values: dict[str, Any] = {}
        itself = None
        for variable, cell in zip(closure, fn.__closure__ or (), strict=True):
            if variable not in code.co_freevars:
                continue
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            if value is fn:
                itself = variable
                continue
            if variable in self.names.rebound and not session.immediate:
                raise session.broken(
                    "SGLC113", f"{name}(), which reads the changing variable {variable!r}, is "
                    "handed to Python that may keep it",
                    fixes=(f"give it the value: lambda ..., {variable}={variable}: ...",))
            values[variable] = value
        for variable in source.free:
            value = self.fn.__globals__.get(variable)
            if variable not in values and makes_prompts(value):
                raise session.broken("SGLC112", f"{name}(), which builds prompts, is handed to "
                                                "Python that is not traced")
        defaults, keywords = fn.__defaults__ or (), fn.__kwdefaults__ or {}
        parts = (*values.values(), *defaults, *keywords.values())
        for part in parts:
            self.hand(part)
        return Built(maker(code, name, self.fn, tuple(values), len(defaults), tuple(keywords),
                           itself, self.cells), parts)

    # -- errors ---------------------------------------------------------------------------
    def throw(self, *given: Any) -> None:
        """`raise given[0] from given[1]`: a host call that raises, and the path's end."""
        place = self.session.place()
        assert place is not None
        for state in self.session.states:  # those of a row that failed are read, too
            if state.observable:
                state.bind_changed()
        self.session.host("raise", thrower(place, self.fn.__name__, len(given)), *given)
        raise PathEnd

    def failed(self, *message: Any) -> None:
        """What an `assert` that does not hold does."""
        self.throw(self.session.host("AssertionError", AssertionError, *message))


def thrower(place: Place, name: str, given: int) -> FunctionType:
    """A function that raises its argument at a place of the user's source, as its traceback
    shows; given: 2 where there is a cause, 0 to raise the current error again."""
    error, cause = ast.Name("error", ast.Load()), ast.Name("cause", ast.Load())
    stmt = ast.Raise(error if given else None, cause if given > 1 else None)
    function = ast.parse(f"def {name}({', '.join(('error', 'cause')[:given])}): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = [stmt]
    for node in ast.walk(function):
        if isinstance(node, (ast.stmt, ast.expr, ast.arg)):
            node.lineno = node.end_lineno = place.line
            node.col_offset = node.end_col_offset = place.col - 1
    code = compile(ast.fix_missing_locations(ast.Module([function], [])), place.file, "exec")
    inner = next(c for c in code.co_consts if isinstance(c, CodeType))
    return FunctionType(inner, {}, name)
