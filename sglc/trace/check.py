"""What a function's source must be for the tracer to follow it: the rest is refused ahead.

Finding the source is done here too.  Knows nothing of how the tree is rewritten afterwards.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import FunctionType
from typing import ClassVar

from sglc.errors import Place
from sglc.trace.breaks import GraphBreak
from sglc.trace.outline import outlines


def source_tree(fn: FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The function's syntax tree with true line numbers; GraphBreak SGLC114 without source."""
    place = Place(fn.__code__.co_filename, fn.__code__.co_firstlineno)
    try:
        lines, first = inspect.getsourcelines(fn.__code__)  # not of what it wraps
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, IndentationError) as e:
        raise GraphBreak("SGLC114", f"the source of {fn.__name__!r} cannot be read", place=place,
                         why=str(e), fixes=("define the program in a file or a notebook cell",
                                            )) from None
    ast.increment_lineno(tree, first - 1)
    node = tree.body[0] if tree.body else None
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise GraphBreak("SGLC114", f"the source of {fn.__name__!r} is not a function",
                         place=place)
    if node.name != fn.__code__.co_name:
        raise GraphBreak("SGLC114", f"the source found for {fn.__name__!r} is another function",
                         place=place)
    return node


class Check(ast.NodeVisitor):
    """Breaks on what the tracer cannot follow."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.functions = 0  # around the node
        self.lambdas = 0

    def refuse(self, node: ast.AST, what: str, code: str = "SGLC111") -> GraphBreak:
        place = Place(self.file, getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1)
        return GraphBreak(code, f"the tracer cannot follow {what}", place=place)

    _REFUSED: ClassVar[dict[type[ast.AST], str]] = {
        ast.Try: "try", ast.AsyncFor: "async for", ast.AsyncWith: "async with",
        ast.ClassDef: "a class inside a program",
    }
    _NAMES: ClassVar[frozenset[str]] = frozenset(
        {"locals", "globals", "vars", "eval", "exec", "super", "__class__"})

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Try) and outlines(node):
            return  # it runs as it is, in one host call
        what = self._REFUSED.get(type(node))
        if what is None and type(node).__name__ == "TryStar":
            what = "try"
        if what is None and self.functions == 1 and isinstance(node, (ast.Yield, ast.YieldFrom)):
            what = "yield: the body is a generator"
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            what = "import *"
        if isinstance(node, ast.comprehension) and node.is_async:
            what = "async for"
        if isinstance(node, ast.NamedExpr) and self.lambdas:
            what = "an assignment inside a lambda"
        if what is not None:
            raise self.refuse(node, what)
        if isinstance(node, ast.Match):
            for case in node.cases:
                if not simple_pattern(case.pattern):
                    raise self.refuse(case.pattern, "this pattern of match")
        if isinstance(node, (ast.For, ast.comprehension)):
            self._target(node.target)
        if isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    self._target(item.optional_vars)
        if isinstance(node, ast.Name) and node.id in self._NAMES:
            raise self.refuse(node, f"{node.id}()")
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        self.functions += function
        self.lambdas += isinstance(node, ast.Lambda)
        self.generic_visit(node)
        self.functions -= function
        self.lambdas -= isinstance(node, ast.Lambda)

    def _target(self, target: ast.AST) -> None:
        if isinstance(target, (ast.Attribute, ast.Subscript)):
            kind = "an attribute" if isinstance(target, ast.Attribute) else "an item"
            raise self.refuse(target, f"a store to {kind} here", "SGLC113")
        if isinstance(target, (ast.Tuple, ast.List)):
            for t in target.elts:
                self._target(t)


def simple_pattern(pattern: ast.pattern) -> bool:
    """Values, alternatives of them, and names or `_` for anything."""
    if isinstance(pattern, ast.MatchOr):
        return all(simple_pattern(p) and not _binds(p) for p in pattern.patterns)
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or simple_pattern(pattern.pattern)
    return isinstance(pattern, (ast.MatchValue, ast.MatchSingleton))


def _binds(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.name is not None
