"""Functions inside a program, as real Python for host calls.

A traced function or lambda calls hooks, which mean nothing once the trace is over.  Where one is
handed to the user's Python (`sorted(found, key=lambda d: score(d))`), a function with the code as
it was written goes there instead, over the values that its variables have at that point.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Sequence
from types import CellType, CodeType, FunctionType
from typing import Any

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Nested:
    """A function of the body, as written.

    free: names that it reads from around it.  changes: whether it assigns variables of the body.
    """

    def __init__(self, node: FunctionNode, outward: frozenset[str]) -> None:
        self.node = copy.deepcopy(node)
        if not isinstance(self.node, ast.Lambda):
            self.node.decorator_list = []
            self.node.returns = None
        for part in ast.walk(self.node):
            if isinstance(part, ast.arg):
                part.annotation = None
        args = self.node.args
        args.defaults = [ast.copy_location(ast.Constant(None), d) for d in args.defaults]
        args.kw_defaults = [None if d is None else ast.copy_location(ast.Constant(None), d)
                            for d in args.kw_defaults]
        self.free = tuple(dict.fromkeys(
            n.id for n in ast.walk(self.node) if isinstance(n, ast.Name)))
        self.changes = any(isinstance(n, ast.Nonlocal) and set(n.names) - outward
                           for n in ast.walk(self.node))
        self._code: CodeType | None = None

    def code(self, file: str, closure: Sequence[str]) -> CodeType:
        """The function's own code; its free variables are among `closure`."""
        if self._code is None:
            outer = ast.parse(f"def outer({', '.join(closure)}):\n    pass").body[0]
            assert isinstance(outer, ast.FunctionDef)
            inner: ast.stmt = ast.Expr(self.node) if isinstance(
                self.node, ast.Lambda) else self.node
            outer.body = [ast.copy_location(inner, self.node)]
            ast.copy_location(outer, self.node)
            module = ast.fix_missing_locations(ast.Module([outer], []))
            made = _inner(compile(module, file, "exec"))
            self._code = _inner(made)
        return self._code


def _inner(code: CodeType) -> CodeType:
    return next(c for c in code.co_consts if isinstance(c, CodeType))


def maker(code: CodeType, name: str, fn: FunctionType, names: Sequence[str], defaults: int,
          keywords: Sequence[str], itself: str | None,
          cells: dict[str, CellType]) -> Callable[[list[Any]], FunctionType]:
    """What makes the function from the values of its variables, then of its defaults.

    names: the variables of the body that it reads; itself: the one that is the function; cells:
    those of the program's own closure.
    """
    def make(values: list[Any]) -> FunctionType:
        own = {n: CellType(v) for n, v in zip(names, values, strict=False)}
        if itself is not None:
            own[itself] = CellType()
        closure = tuple(own[n] if n in own else cells[n] if n in cells else CellType()
                        for n in code.co_freevars)
        rest = values[len(names):]
        made = FunctionType(code, fn.__globals__, name, tuple(rest[:defaults]) or None, closure)
        made.__kwdefaults__ = dict(zip(keywords, rest[defaults:], strict=True)) or None
        if itself is not None:
            own[itself].cell_contents = made
        return made

    return make
