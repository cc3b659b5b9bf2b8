"""Rewriting `match` statements: a chain of ifs over comparisons."""

from __future__ import annotations

import ast
from typing import Any

from sglc.trace.statements import Statements, as_list, hook, thunk


class Matching(Statements):
    """The part of the rewriting for `match`, for patterns that `check.py` lets pass."""

    def visit_Match(self, node: ast.Match) -> list[ast.stmt]:
        name = self.temporary()
        subject = ast.copy_location(
            ast.Assign([ast.Name(name, ast.Store())], self.visit(node.subject)), node)
        chain: list[ast.stmt] = []
        for case in reversed(node.cases):
            test = self._matches(name, case.pattern)
            body = [s for stmt in case.body for s in as_list(self.visit(stmt))]
            names = self._captures(name, case.pattern)
            if case.guard is not None:
                # Names are bound before the guard is asked.
                inner = ast.copy_location(ast.If(
                    hook("truth", self.visit(case.guard), at=case.guard), body, chain), node)
                body, again = [*names, inner], chain
            else:
                body, again = [*names, *body], chain
            if test is None:
                chain = body
            else:
                chain = [ast.copy_location(ast.If(hook("truth", test, at=case.pattern), body,
                                                  list(again)), node)]
        return [subject, *chain]

    def _matches(self, name: str, pattern: ast.pattern) -> ast.expr | None:
        """The test of a pattern; None if anything matches."""
        load = ast.copy_location(ast.Name(name, ast.Load()), pattern)
        if isinstance(pattern, ast.MatchValue):
            pair = ast.Tuple([ast.Constant("Eq"), thunk(self.visit(pattern.value))], ast.Load())
            return hook("compare", load, pair, at=pattern)
        if isinstance(pattern, ast.MatchSingleton):
            value = ast.copy_location(ast.Constant(pattern.value), pattern)
            pair = ast.Tuple([ast.Constant("Is"), thunk(value)], ast.Load())
            return hook("compare", load, pair, at=pattern)
        if isinstance(pattern, ast.MatchAs):
            return None if pattern.pattern is None else self._matches(name, pattern.pattern)
        assert isinstance(pattern, ast.MatchOr)
        tests = [self._matches(name, p) for p in pattern.patterns]
        if any(t is None for t in tests):
            return None
        return hook("any_of", *[thunk(t) for t in tests if t is not None], at=pattern)

    def _captures(self, name: str, pattern: Any) -> list[ast.stmt]:
        if isinstance(pattern, ast.MatchAs) and pattern.name is not None:
            target = ast.copy_location(ast.Name(pattern.name, ast.Store()), pattern)
            load = ast.copy_location(ast.Name(name, ast.Load()), pattern)
            return self._store(target, load, pattern)  # type: ignore[arg-type]
        return []
