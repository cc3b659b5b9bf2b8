"""Rewriting a function's syntax tree so that nothing happens behind the tracer's back.

Calls, f-strings, comparisons, boolean operators, branches, loops, subscripts and attribute reads
go through the hooks in `hooks.py` (the name `__sglc__` in the rewritten code).  A construct
without a hook breaks the graph before anything runs (`check.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from sglc.trace.check import Check, source_tree
from sglc.trace.matching import Matching
from sglc.trace.nested import FunctionNode, Nested
from sglc.trace.outline import Outlined
from sglc.trace.scopes import Names, names_of
from sglc.trace.statements import HOOKS, as_list, hook, thunk


@dataclass(frozen=True, slots=True)
class Rewritten:
    """code: a module that defines the function.  outlined: its statements that run as one host
    call.  nested: the functions inside it, as written.
    """

    code: CodeType
    outlined: tuple[Outlined, ...]
    nested: tuple[Nested, ...]
    names: Names


def rewrite(fn: FunctionType, kind: type[Rewrite] | None = None) -> Rewritten:
    """The rewritten function.  kind: the rewriting to do, `Rewrite` or a kind of it."""
    node = source_tree(fn)
    file = fn.__code__.co_filename
    Check(file).visit(node)
    names = names_of(fn, node)
    node = ast.copy_location(ast.FunctionDef(
        node.name, node.args, node.body, [], None, None,
        **({"type_params": []} if "type_params" in ast.FunctionDef._fields else {})), node)
    for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs,
                node.args.vararg, node.args.kwarg]:
        if arg is not None:
            arg.annotation = None
    node.args.defaults = [ast.copy_location(ast.Constant(None), d) for d in node.args.defaults]
    node.args.kw_defaults = [None if d is None else ast.copy_location(ast.Constant(None), d)
                             for d in node.args.kw_defaults]
    rewriter = (kind or Rewrite)(file, names)
    for part in ast.walk(node):
        if isinstance(part, ast.Try):
            rewriter.unsure |= Outlined(part, set(names.outside), set(names.closure),
                                        names.bound).unsure()
    node.body = [s for stmt in node.body for s in as_list(rewriter.visit(stmt))]
    node.body[:0] = rewriter.setters(rewriter.walrus[0], node.body[0])
    if rewriter.assigned:  # so that they are locals of this function, for its arms to assign
        bind = ast.parse(f"if 0: {' = '.join(sorted(rewriter.assigned))} = None").body[0]
        node.body.insert(0, ast.copy_location(bind, node.body[0]))
    module = ast.Module([node], [])
    ast.fix_missing_locations(module)
    return Rewritten(compile(module, file, "exec"), tuple(rewriter.outlined),
                     tuple(rewriter.functions), names)


class Rewrite(Matching):
    """Puts the hooks in."""

    def __init__(self, file: str, names: Names) -> None:
        super().__init__()
        self.file = file
        self.names = names
        self.outlined: list[Outlined] = []
        self.functions: list[Nested] = []
        self.nested = 0  # functions inside the program
        self.branches = 0
        self.tests: set[ast.expr] = set()
        self.assigned: set[str] = set()  # locals that arms of branches assign
        self.unsure: set[str] = set()  # those that a `try` may leave unbound

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load):
            if node.id in self.names.outward:
                return hook("live_name", ast.Constant(node.id), at=node)
            if node.id in self.names.outside:
                return hook("outside", ast.Constant(node.id), at=node)
            if node.id in self.unsure:
                return hook("checked", node, at=node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        for keyword in node.keywords:
            if keyword.arg is None:
                keyword.value = hook("mapping", keyword.value, at=keyword.value)
        call = ast.Call(ast.Attribute(ast.Name(HOOKS, ast.Load()), "call", ast.Load()),
                        [node.func, *node.args], node.keywords)
        return ast.copy_location(call, node)

    def visit_Starred(self, node: ast.Starred) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.value = hook("iterate", node.value, at=node.value)
        return node

    def visit_Await(self, node: ast.Await) -> ast.expr:
        self.generic_visit(node)
        return hook("awaited", node.value, at=node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        parts: list[ast.expr] = []
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts.append(value)
                continue
            assert isinstance(value, ast.FormattedValue)
            spec: ast.expr = ast.Constant("")
            if value.format_spec is not None:
                spec = self.visit(value.format_spec)
            conversion = "" if value.conversion == -1 else chr(value.conversion)
            parts.append(ast.Tuple([self.visit(value.value), ast.Constant(conversion), spec],
                                   ast.Load()))
        return hook("fstring", *parts, at=node)

    # -- displays -------------------------------------------------------------------------
    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        self.generic_visit(node)
        if all(isinstance(k, ast.Constant) for k in node.keys):
            return node
        pairs: list[ast.expr] = [
            ast.Tuple([value] if key is None else [key, value], ast.Load())
            for key, value in zip(node.keys, node.values, strict=True)]
        return hook("made_dict", *pairs, at=node)

    def visit_Set(self, node: ast.Set) -> ast.expr:
        self.generic_visit(node)
        if all(isinstance(e, ast.Constant) for e in node.elts):
            return node
        return hook("made_set", *node.elts, at=node)

    def visit_List(self, node: ast.List) -> ast.expr:
        return self._sequence(node)

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        return self._sequence(node)

    def _sequence(self, node: ast.List | ast.Tuple) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and any(isinstance(e, ast.Starred) for e in node.elts):
            parts: list[ast.expr] = [
                ast.Tuple([self.visit(e.value if isinstance(e, ast.Starred) else e),
                           ast.Constant(isinstance(e, ast.Starred))], ast.Load())
                for e in node.elts]
            return hook("made_sequence", ast.Constant(type(node).__name__.lower()), *parts,
                        at=node)
        self.generic_visit(node)
        return node

    def visit_DictComp(self, node: ast.DictComp) -> ast.expr:
        self.generic_visit(node)
        pairs = ast.ListComp(ast.Tuple([node.key, node.value], ast.Load()), node.generators)
        return hook("made_dict", ast.Starred(pairs, ast.Load()), at=node)

    def visit_SetComp(self, node: ast.SetComp) -> ast.expr:
        self.generic_visit(node)
        items = ast.ListComp(node.elt, node.generators)
        return hook("made_set", ast.Starred(items, ast.Load()), at=node)

    # -- operators ------------------------------------------------------------------------
    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        rest: list[ast.expr] = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            rest.append(ast.Tuple([ast.Constant(type(op).__name__), thunk(right)], ast.Load()))
        return hook("compare", node.left, *rest, at=node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        name = "all_of" if isinstance(node.op, ast.And) else "any_of"
        if node in self.tests:
            name = "all_true" if isinstance(node.op, ast.And) else "any_true"
        return hook(name, *[thunk(v) for v in node.values], at=node)

    def _test(self, node: ast.expr) -> None:
        """Note that of a boolean operator only the truth matters: nothing is asked twice."""
        if isinstance(node, ast.BoolOp):
            self.tests.add(node)
            for value in node.values:
                self._test(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._test(node.operand)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if isinstance(node.op, ast.Not):
            self._test(node.operand)
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            return hook("negate", node.operand, at=node)
        if isinstance(node.operand, ast.Constant):
            return node
        return hook("unary", ast.Constant(type(node.op).__name__), node.operand, at=node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mod):
            return hook("percent", node.left, node.right, at=node)
        return hook("binary", ast.Constant(type(node.op).__name__), node.left, node.right, at=node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self._test(node.test)
        self.generic_visit(node)
        node.test = hook("truth", node.test, at=node.test)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            return node
        return hook("attribute", node.value, ast.Constant(node.attr), at=node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return hook("item", node.value, node.slice, at=node)
        return node

    def visit_Slice(self, node: ast.Slice) -> ast.expr:
        self.generic_visit(node)
        none = ast.Constant(None)
        call = ast.Call(ast.Name("slice", ast.Load()),
                        [node.lower or none, node.upper or none, node.step or none], [])
        return ast.copy_location(call, node)

    # -- branches and loops ---------------------------------------------------------------
    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        self._test(node.test)
        if self.nested == 0 and all(map(_rejoins, [*node.body, *node.orelse])):
            return self._branch(node)
        self.generic_visit(node)
        node.test = hook("truth", node.test, at=node.test)
        return node

    def _branch(self, node: ast.If) -> list[ast.stmt]:
        """The arms as functions, for an `if` behind which they rejoin."""
        self.branches += 1
        n = self.branches
        stored = {x.id for part in (*node.body, *node.orelse) for x in ast.walk(part)
                  if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
        names = sorted((stored | self.names.shared) - self.names.outward)
        self.assigned.update(names)
        test = self.visit(node.test)
        out: list[ast.stmt] = []
        for what, body in (("then", node.body), ("else", node.orelse)):
            stmts = [s for stmt in body for s in as_list(self.visit(stmt))] or [ast.Pass()]
            out.append(function_of(f"__sglc_{what}_{n}", "", names, stmts))
        out += self.accessors(n, names)
        call = hook("branch", test, *[ast.Name(f"__sglc_{w}_{n}", ast.Load())
                                      for w in ("then", "else", "get", "put")], at=node.test)
        out.append(ast.Expr(call))
        return self.placed(out, node.test)

    @staticmethod
    def accessors(n: int, names: Sequence[str]) -> list[ast.stmt]:
        """Functions that read and set the locals `names`."""
        read = ", ".join(f"__sglc__.local(lambda: {x})" for x in names)
        assign = "\n    ".join(f"{x} = __v[{i}]" for i, x in enumerate(names)) or "pass"
        body = ast.parse(f"if 1:\n    {assign}").body[0].body  # type: ignore[attr-defined]
        return [*ast.parse(f"def __sglc_get_{n}(): return ({read}{',' if names else ''})").body,
                function_of(f"__sglc_put_{n}", "__v", names, body)]

    @staticmethod
    def placed(out: list[ast.stmt], at: ast.AST) -> list[ast.stmt]:
        """New statements, at the place of the one that they stand for; what is new in the user's
        own ones is where these are."""
        todo: list[tuple[ast.AST, ast.AST]] = [(stmt, at) for stmt in out]
        while todo:
            node, place = todo.pop()
            if hasattr(node, "lineno"):
                place = node
            elif isinstance(node, (ast.expr, ast.stmt, ast.arg)):
                ast.copy_location(node, place)
            todo += [(child, place) for child in ast.iter_child_nodes(node)]
        return out

    def visit_While(self, node: ast.While) -> ast.stmt:
        self._test(node.test)
        self.generic_visit(node)
        node.test = hook("truth", node.test, at=node.test)
        return node

    def visit_For(self, node: ast.For) -> ast.stmt:
        self.not_outward(node.target)
        self.generic_visit(node)
        node.iter = hook("iterate", node.iter, at=node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        self.not_outward(node.target)
        for test in node.ifs:
            self._test(test)
        self.generic_visit(node)
        node.iter = hook("iterate", node.iter, at=node.iter)
        node.ifs = [hook("truth", test, at=test) for test in node.ifs]
        return node

    def visit_Try(self, node: ast.Try) -> list[ast.stmt]:
        """One host call, then the variables that it bound."""
        self.not_outward(node)
        outlined = Outlined(node, set(self.names.outside), set(self.names.closure),
                            self.names.bound)
        self.outlined.append(outlined)
        result = f"__sglc_out_{len(self.outlined)}"
        given = [ast.Tuple([ast.Constant(n), thunk(ast.copy_location(
            ast.Name(n, ast.Load()), node))], ast.Load())
            for n in outlined.locals if n not in outlined.closure]
        out: list[ast.stmt] = [ast.copy_location(ast.Assign(
            [ast.Name(result, ast.Store())],
            hook("outlined", ast.Constant(len(self.outlined) - 1), *given, at=node)), node)]
        for name in outlined.stores:
            value = hook("bound", ast.Name(result, ast.Load()), ast.Constant(name), at=node)
            out.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node))
        return out

    def visit_With(self, node: ast.With) -> ast.stmt:
        for item in node.items:
            self.not_outward(item)
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = hook("context", item.context_expr, at=item.context_expr)
        return node

    # -- functions inside the program -----------------------------------------------------
    def _number(self, node: FunctionNode) -> ast.Constant:
        self.functions.append(Nested(node, self.names.outward))
        return ast.Constant(len(self.functions) - 1)

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        number = self._number(node)
        self.generic_visit(node)
        return hook("function", number, node, at=node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> list[ast.stmt]:
        return self._inner_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> list[ast.stmt]:
        return self._inner_function(node)

    def _inner_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
        number = self._number(node)
        what = "function" if isinstance(node, ast.FunctionDef) else "coroutine"
        out: list[ast.stmt] = []
        decorators: list[ast.expr] = []
        for decorator in node.decorator_list:
            name = self.temporary()
            out.append(ast.copy_location(ast.Assign(
                [ast.Name(name, ast.Store())], self.visit(decorator)), decorator))
            decorators.append(ast.copy_location(ast.Name(name, ast.Load()), decorator))
        node.decorator_list = []
        node.returns = None
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        self.nested += 1
        self.walrus.append(set())
        self.generic_visit(node)
        node.body[:0] = self.setters(self.walrus.pop(), node.body[0])
        self.nested -= 1
        made = ast.copy_location(ast.FunctionDef(
            node.name, node.args, node.body, [], None, None,
            **({"type_params": []} if "type_params" in ast.FunctionDef._fields else {})), node)
        value: ast.expr = hook(what, number, ast.copy_location(
            ast.Name(node.name, ast.Load()), node), at=node)
        for decorator in reversed(decorators):
            value = hook("call", decorator, value, at=decorator)
        return [*out, made, ast.copy_location(
            ast.Assign([ast.Name(node.name, ast.Store())], value), node)]


def _rejoins(node: ast.stmt) -> bool:
    """Whether an arm's statement always goes on to the next one."""
    if isinstance(node, ast.If):
        return all(map(_rejoins, [*node.body, *node.orelse]))
    if isinstance(node, ast.With):
        return all(map(_rejoins, node.body))
    return isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Pass))


def function_of(name: str, argument: str, names: Sequence[str], body: list[ast.stmt]) -> ast.stmt:
    """`def name(argument): nonlocal names; body`."""
    head = f"def {name}({argument}):\n    " + (f"nonlocal {', '.join(names)}" if names else "pass")
    made = ast.parse(head).body[0]
    assert isinstance(made, ast.FunctionDef)
    made.body += body
    return made


def instantiate(code: CodeType, fn: FunctionType, hooks: Any) -> FunctionType:
    """The rewritten form of `fn` over its hooks."""
    import builtins

    inner = next(c for c in code.co_consts
                 if isinstance(c, CodeType) and c.co_name == fn.__code__.co_name)
    out = FunctionType(inner, {HOOKS: hooks, "__builtins__": builtins}, fn.__name__,
                       fn.__defaults__)
    out.__kwdefaults__ = fn.__kwdefaults__
    return out
