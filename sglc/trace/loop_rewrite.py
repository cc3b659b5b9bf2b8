"""Rewriting for traces of any length: loops and list comprehensions become calls.

Their bodies are functions then, so that one round can be traced more than once (see `loops.py`).
"""

from __future__ import annotations

import ast

from sglc.trace.rewrite import Rewrite, function_of
from sglc.trace.statements import as_list, hook


class LoopRewrite(Rewrite):
    """As `Rewrite`, with `for` loops whose rounds always go on to the next one as calls."""

    def visit_For(self, node: ast.For) -> ast.stmt | list[ast.stmt]:
        if self.nested or node.orelse or not all(map(_goes_on, node.body)):
            return super().visit_For(node)
        self.not_outward(node.target)
        self.branches += 1
        n = self.branches
        stored = {x.id for part in (node.target, *node.body) for x in ast.walk(part)
                  if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
        stored |= {x.func.value.id for part in node.body for x in ast.walk(part)
                   if isinstance(x, ast.Call) and isinstance(x.func, ast.Attribute)
                   and x.func.attr == "append" and isinstance(x.func.value, ast.Name)
                   and x.func.value.id not in self.names.outside}
        names = sorted((stored | self.names.shared) - self.names.outward)
        self.assigned.update(names)
        items = self.visit(node.iter)
        target = ast.Assign([node.target], ast.Name("__item", ast.Load()))
        body = [target, *(s for stmt in node.body for s in as_list(self.visit(stmt)))]
        out = [function_of(f"__sglc_round_{n}", "__item", names, body),
               *self.accessors(n, names)]
        own = {x.id for x in ast.walk(node.target)
               if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
        out.append(ast.Expr(hook(
            "loop", items, *[ast.Name(f"__sglc_{w}_{n}", ast.Load())
                             for w in ("round", "get", "put")],
            ast.Constant(tuple(i for i, x in enumerate(names) if x in own)), at=node.iter)))
        return self.placed(out, node.iter)

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        if self.nested or not _is_simple(node):
            self.generic_visit(node)
            return node
        return self._mapped(node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if len(node.args) == 1 and not node.keywords and not self.nested:
            only = node.args[0]  # a generator that the called function goes through at once
            if isinstance(only, ast.GeneratorExp) and _is_simple(only):
                node.args = [ast.copy_location(ast.ListComp(only.elt, only.generators), only)]
        return super().visit_Call(node)

    def _mapped(self, node: ast.ListComp) -> ast.expr:
        """`[e for t in items]` as a call: of the items, and a function from one to `e`."""
        loop = node.generators[0]
        self.not_outward(loop.target)
        items = self.visit(loop.iter)
        one = ast.Tuple([ast.Name("__item", ast.Load())], ast.Load())
        inner = ast.ListComp(self.visit(node.elt), [ast.comprehension(loop.target, one, [], 0)])
        first = ast.Subscript(inner, ast.Constant(0), ast.Load())
        arguments = ast.arguments(posonlyargs=[], args=[ast.arg("__item")], kwonlyargs=[],
                                  kw_defaults=[], defaults=[])
        made = hook("mapped", items, ast.Lambda(arguments, first), at=node)
        ast.fix_missing_locations(made)
        return made


def _is_simple(node: ast.ListComp | ast.GeneratorExp) -> bool:
    return (len(node.generators) == 1 and not node.generators[0].ifs
            and not node.generators[0].is_async
            and not any(isinstance(x, (ast.NamedExpr, ast.Await)) for x in ast.walk(node)))


def _goes_on(node: ast.stmt) -> bool:
    """Whether a round's statement always goes on to the next one."""
    if isinstance(node, ast.If):
        return all(map(_goes_on, [*node.body, *node.orelse]))
    if isinstance(node, ast.For):
        return not node.orelse and all(map(_goes_on, node.body))
    if isinstance(node, ast.With):
        return all(map(_goes_on, node.body))
    return isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Pass))
