"""`try` statements around host calls: the whole statement becomes one host call.

The statement runs as it was written, at run time, as a function of the local variables that it
reads; the variables that it binds come back.  It may read variables of a prompt state
(`s["x"]`, with a constant name); anything else it does with a state breaks the graph.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

from sglc.runtime.typed import opened

_LEAVES = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom, ast.Await, ast.Global,
           ast.Nonlocal, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import,
           ast.ImportFrom, ast.Lambda)


class Outlined:
    """A statement as a function.

    names: the local variables it reads or binds, its parameters.  reads: parameter -> constant
    keys that it is subscripted with; None where it is also used otherwise.
    """

    def __init__(self, node: ast.stmt, outside: set[str], closure: set[str]) -> None:
        loads: dict[str, None] = {}
        self.stores: dict[str, None] = {}
        self.reads: dict[str, dict[Any, None] | None] = {}
        keyed: set[int] = set()
        for n in ast.walk(node):
            if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name) and isinstance(
                    n.ctx, ast.Load) and isinstance(n.slice, ast.Constant):
                keyed.add(id(n.value))
                keys = self.reads.setdefault(n.value.id, {})
                if keys is not None:
                    keys[n.slice.value] = None
        for n in ast.walk(node):
            if isinstance(n, ast.Name):
                if isinstance(n.ctx, ast.Load):
                    loads.setdefault(n.id)
                    if id(n) not in keyed:
                        self.reads[n.id] = None
                else:
                    self.stores.setdefault(n.id)
                    self.reads[n.id] = None
            elif isinstance(n, ast.ExceptHandler) and n.name:
                self.stores.pop(n.name, None)
        handlers = {n.name for n in ast.walk(node) if isinstance(n, ast.ExceptHandler) and n.name}
        self.closure = tuple(n for n in loads if n in closure)
        self.outside = tuple(n for n in loads if n in outside and n not in closure)
        self.locals = tuple(n for n in {**loads, **self.stores}
                            if (n not in outside or n in closure) and n not in handlers)
        self.stores = {n: None for n in self.stores if n not in handlers}
        self.node = copy.deepcopy(node)

    def first_use(self, name: str) -> tuple[int, int]:
        """Line and column (from 1) of the first use of a variable."""
        uses = [(n.lineno, n.col_offset + 1) for n in ast.walk(self.node)
                if isinstance(n, ast.Name) and n.id == name]
        return min(uses)

    def function(self, fn: FunctionType) -> FunctionType:
        """The statement over `fn`'s globals: (variables by name) -> variables by name after."""
        source = ast.parse("def _outlined(__in):\n    pass").body[0]
        assert isinstance(source, ast.FunctionDef)
        body: list[ast.stmt] = []
        for name in self.locals:
            body += ast.parse(f"if {name!r} in __in: {name} = __in[{name!r}]").body
        body.append(self.node)
        body += ast.parse("return locals()").body
        source.body = body
        ast.copy_location(source, self.node)
        module = ast.fix_missing_locations(ast.Module([source], []))
        code = compile(module, fn.__code__.co_filename, "exec")
        inner = next(c for c in code.co_consts if isinstance(c, CodeType))
        return FunctionType(inner, fn.__globals__, f"{fn.__name__}.try")


def outlines(node: ast.Try) -> bool:
    """Whether a `try` statement can be a function: nothing in it leaves it sideways."""
    return not any(isinstance(n, _LEAVES) for n in ast.walk(node))


class Reads:
    """Stands for a prompt state inside an outlined statement: its variables, read before."""

    def __init__(self, values: Mapping[Any, Any]) -> None:
        self.values = values

    def __getitem__(self, name: Any) -> Any:
        return opened(self.values[name])


def run_outlined(function: Any, names: tuple[str, ...], *values: Any) -> dict[str, Any]:
    """The variables after the statement, by name."""
    out = function(dict(zip(names, values, strict=True)))
    out.pop("__in", None)
    return dict(out)


UNBOUND = object()
"""The value of a variable that the statement left unbound; using it is Python's error."""


def bound(variables: Mapping[str, Any], name: str) -> Any:
    """A variable after the statement."""
    return variables.get(name, UNBOUND)


def check_bound(value: Any) -> Any:
    """The value; UnboundLocalError if it stands for an unbound variable."""
    if value is UNBOUND:
        raise UnboundLocalError("a local variable is referenced before assignment")
    return value
