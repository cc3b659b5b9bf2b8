"""`try` statements around host calls: the whole statement becomes one host call.

The statement runs as it was written, at run time, as a function of the local variables that it
reads; the variables that it binds come back.  It may read variables of a prompt state
(`s["x"]`, with a constant name); anything else it does with a state breaks the graph.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from sglc.runtime.run_outputs import Failed
from sglc.runtime.typed import opened

_LEAVES = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom, ast.Await, ast.Global,
           ast.Nonlocal, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import,
           ast.ImportFrom, ast.Lambda)


class Outlined:
    """A statement as a function.

    names: the local variables it reads or binds, its parameters.  reads: parameter -> constant
    keys that it is subscripted with; None where it is also used otherwise.  bound: names that
    the function binds somewhere, as Python's `except ... as` does not.
    """

    def __init__(self, node: ast.stmt, outside: set[str], closure: set[str],
                 bound: frozenset[str]) -> None:
        loads: dict[str, None] = {}
        self.stores: dict[str, None] = {}
        self.reads: dict[str, dict[Any, None] | None] = {}
        # `except ... as name` unbinds the name: of no matter unless it is bound otherwise, too.
        handlers = {n.name for n in ast.walk(node)
                    if isinstance(n, ast.ExceptHandler) and n.name} - bound
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
            elif isinstance(n, ast.ExceptHandler) and n.name in bound:
                self.stores.setdefault(n.name)
                self.reads[n.name] = None
        self.closure = tuple(n for n in loads if n in closure)
        self.outside = tuple(n for n in loads if n in outside and n not in closure)
        self.locals = tuple(n for n in {**loads, **self.stores}
                            if (n not in outside or n in closure) and n not in handlers)
        self.stores = {n: None for n in self.stores if n not in handlers}
        self.node = copy.deepcopy(node)
        undone = {n.id for n in ast.walk(node)
                  if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}
        self._undone = frozenset(undone | ({n.name for n in ast.walk(node) if isinstance(
            n, ast.ExceptHandler) and n.name} & bound))
        self._perhaps = frozenset(self.stores) - frozenset(assigned([node]) or ())

    def unsure(self, given: Collection[str] = ()) -> frozenset[str]:
        """The variables that may be unbound after it, where those given are bound before."""
        return self._undone | (self._perhaps - frozenset(given))

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


def assigned(body: Sequence[ast.stmt]) -> set[str] | None:
    """The names that statements surely assign; None if they never come to their end."""
    out: set[str] = set()
    for stmt in body:
        found: set[str] | None = set()
        if isinstance(stmt, ast.Raise):
            found = None
        elif isinstance(stmt, (ast.Assign, ast.AugAssign)):
            targets = stmt.targets if isinstance(stmt, ast.Assign) else [stmt.target]
            found = {n.id for t in targets for n in ast.walk(t)
                     if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        elif isinstance(stmt, ast.If):
            found = _either(assigned(stmt.body), assigned(stmt.orelse))
        elif isinstance(stmt, ast.Try):
            found = _either(assigned([*stmt.body, *stmt.orelse]),
                            *(assigned(h.body) for h in stmt.handlers))
            last = assigned(stmt.finalbody)
            found = None if found is None or last is None else found | last
        if found is None:
            return None
        out |= found
    return out


def _either(*ways: set[str] | None) -> set[str] | None:
    known = [way for way in ways if way is not None]
    return set.intersection(*known) if known else None


def outlines(node: ast.Try) -> bool:
    """Whether a `try` statement can be a function: nothing in it leaves it sideways."""
    return not any(isinstance(n, _LEAVES) for n in ast.walk(node))


class Reads:
    """Stands for a prompt state inside an outlined statement: its variables, which are there;
    reading one that failed raises its error."""

    def __init__(self, values: Mapping[Any, Any]) -> None:
        self.values = values

    def __getitem__(self, name: Any) -> Any:
        value = self.values[name]
        for part in value if type(value) is list else (value,):  # all samples of a gen fail
            if isinstance(part, Failed):
                raise part.error
        return opened(value)


def run_outlined(function: Any, names: tuple[str, ...], *values: Any) -> dict[str, Any]:
    """The variables after the statement, by name."""
    given = zip(names, values, strict=True)
    out = function({n: v for n, v in given if not isinstance(v, Unbound)})
    out.pop("__in", None)
    return dict(out)


@dataclass(frozen=True, slots=True)
class Unbound:
    """The value of a variable that the statement left unbound; using it is Python's error."""

    name: str


def bound(variables: Mapping[str, Any], name: str) -> Any:
    """A variable after the statement."""
    return variables[name] if name in variables else Unbound(name)


def check_bound(value: Any) -> Any:
    """The value; UnboundLocalError if it stands for an unbound variable."""
    if isinstance(value, Unbound):
        raise UnboundLocalError(
            f"cannot access local variable {value.name!r} where it is not associated with a value"
            if sys.version_info >= (3, 11)
            else f"local variable {value.name!r} referenced before assignment")
    return value
