"""Rewriting a function's syntax tree so that nothing happens behind the tracer's back.

Calls, f-strings, comparisons, boolean operators, branches, loops, subscripts and attribute reads
go through the hooks in `hooks.py` (the name `__sglc__` in the rewritten code).  A construct
without a hook breaks the graph before anything runs.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Sequence
from types import CodeType, FunctionType
from typing import Any, ClassVar

from sglc.errors import Place
from sglc.trace.breaks import GraphBreak
from sglc.trace.outline import Outlined, outlines

_HOOKS = "__sglc__"


def source_tree(fn: FunctionType) -> ast.FunctionDef:
    """The function's syntax tree with true line numbers; GraphBreak SGLC114 without source."""
    place = Place(fn.__code__.co_filename, fn.__code__.co_firstlineno)
    try:
        lines, first = inspect.getsourcelines(fn)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, IndentationError) as e:
        raise GraphBreak("SGLC114", f"the source of {fn.__name__!r} cannot be read", place=place,
                         why=str(e), fixes=("define the program in a file or a notebook cell",
                                            )) from None
    ast.increment_lineno(tree, first - 1)
    node = tree.body[0] if tree.body else None
    if isinstance(node, ast.AsyncFunctionDef):
        raise GraphBreak("SGLC111", "an async program body cannot be traced", place=place)
    if not isinstance(node, ast.FunctionDef):
        raise GraphBreak("SGLC114", f"the source of {fn.__name__!r} is not a function",
                         place=place)
    if node.name != fn.__name__:
        raise GraphBreak("SGLC114", f"the source found for {fn.__name__!r} is another function",
                         place=place)
    return node


def rewrite(fn: FunctionType) -> tuple[CodeType, tuple[Outlined, ...]]:
    """The rewritten function's code (a module that defines it), and its outlined statements."""
    node = source_tree(fn)
    file = fn.__code__.co_filename
    _Check(file).visit(node)
    outside = _outside_names(fn, node)
    node.decorator_list = []
    node.returns = None
    for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs,
                node.args.vararg, node.args.kwarg]:
        if arg is not None:
            arg.annotation = None
    node.args.defaults = [ast.copy_location(ast.Constant(None), d) for d in node.args.defaults]
    node.args.kw_defaults = [None if d is None else ast.copy_location(ast.Constant(None), d)
                             for d in node.args.kw_defaults]
    rewriter = _Rewrite(set(outside), set(fn.__code__.co_freevars))
    node.body = [s for stmt in node.body for s in _as_list(rewriter.visit(stmt))]
    if rewriter.assigned:  # so that they are locals of this function, for its arms to assign
        names = " = ".join(sorted(rewriter.assigned))
        bind = ast.parse(f"if 0: {names} = None").body[0]
        node.body.insert(0, ast.copy_location(bind, node.body[0]))
    module = ast.Module([node], [])
    ast.fix_missing_locations(module)
    return compile(module, file, "exec"), tuple(rewriter.outlined)


def _outside_names(fn: FunctionType, node: ast.FunctionDef) -> tuple[str, ...]:
    """Globals and closure variables that the function, or functions inside it, read."""
    names: set[str] = set(fn.__code__.co_freevars)
    todo = [fn.__code__]
    while todo:
        code = todo.pop()
        names.update(i.argval for i in dis.get_instructions(code)
                     if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
        todo.extend(c for c in code.co_consts if isinstance(c, CodeType))
    bound = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)
             and not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    bound |= {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef) and n is not node}
    if both := sorted(names & bound):
        place = Place(fn.__code__.co_filename, node.lineno)
        raise GraphBreak("SGLC111", f"the name {both[0]!r} is both local and from outside",
                         place=place, fixes=("rename one of the two",))
    return tuple(sorted(names))


class _Check(ast.NodeVisitor):
    """Breaks on what the tracer cannot follow."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.depth = 0

    def refuse(self, node: ast.AST, what: str, code: str = "SGLC111") -> GraphBreak:
        place = Place(self.file, getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1)
        return GraphBreak(code, f"the tracer cannot follow {what}", place=place)

    _REFUSED: ClassVar[dict[type[ast.AST], str]] = {
        ast.Try: "try", ast.Yield: "yield", ast.YieldFrom: "yield from", ast.Await: "await",
        ast.AsyncFor: "async for", ast.AsyncWith: "async with", ast.Global: "global",
        ast.Nonlocal: "nonlocal", ast.Import: "an import inside a program",
        ast.ImportFrom: "an import inside a program", ast.Raise: "raise", ast.Assert: "assert",
        ast.ClassDef: "a class inside a program",
        ast.AsyncFunctionDef: "an async function", ast.NamedExpr: "an assignment expression",
        ast.Delete: "del",
    }

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Try) and outlines(node):
            return  # it runs as it is, in one host call
        what = self._REFUSED.get(type(node))
        if what is None and type(node).__name__ == "TryStar":
            what = "try"
        if what is not None:
            raise self.refuse(node, what)
        if isinstance(node, ast.Match):
            for case in node.cases:
                if not _simple_pattern(case.pattern):
                    raise self.refuse(case.pattern, "this pattern of match")
        if isinstance(node, ast.FunctionDef):
            if self.depth and node.decorator_list:
                raise self.refuse(node, "a decorated function inside a program")
            self.depth += 1
        if isinstance(node, (ast.Assign, ast.For, ast.comprehension)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._target(target, isinstance(node, ast.Assign) and len(node.targets) == 1)
        if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            self._target(node.target, True)
        if isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    self._target(item.optional_vars, False)
        if isinstance(node, ast.Name) and node.id in ("locals", "globals", "vars", "eval", "exec",
                                                      "super", "__class__"):
            raise self.refuse(node, f"{node.id}()")
        self.generic_visit(node)

    def _target(self, target: ast.AST, whole: bool) -> None:
        if isinstance(target, ast.Attribute) and not whole:
            raise self.refuse(target, "a store to an attribute here", "SGLC113")
        if isinstance(target, ast.Subscript) and not whole:
            raise self.refuse(target, "a store to an item here", "SGLC113")
        if isinstance(target, (ast.Tuple, ast.List)):
            for t in target.elts:
                self._target(t, False)


def _hook(name: str, *args: ast.expr, at: ast.AST) -> ast.Call:
    call = ast.Call(ast.Attribute(ast.Name(_HOOKS, ast.Load()), name, ast.Load()), list(args), [])
    return ast.copy_location(call, at)


def _simple_pattern(pattern: ast.pattern) -> bool:
    """Values, alternatives of them, and names or `_` for anything."""
    if isinstance(pattern, ast.MatchOr):
        return all(_simple_pattern(p) and not _binds(p) for p in pattern.patterns)
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _simple_pattern(pattern.pattern)
    return isinstance(pattern, (ast.MatchValue, ast.MatchSingleton))


def _binds(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.name is not None


def _lambda(body: ast.expr) -> ast.Lambda:
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.copy_location(ast.Lambda(empty, body), body)


class _Rewrite(ast.NodeTransformer):
    """Puts the hooks in."""

    def __init__(self, outside: set[str], closure: set[str]) -> None:
        self.outside = outside
        self.closure = closure
        self.matches = 0
        self.outlined: list[Outlined] = []
        self.nested = 0  # functions inside the program
        self.branches = 0
        self.assigned: set[str] = set()  # locals that arms of branches assign

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self.outside:
            return _hook("outside", ast.Constant(node.id), at=node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        call = ast.Call(ast.Attribute(ast.Name(_HOOKS, ast.Load()), "call", ast.Load()),
                        [node.func, *node.args], node.keywords)
        return ast.copy_location(call, node)

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
        return _hook("fstring", *parts, at=node)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        rest: list[ast.expr] = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            rest.append(ast.Tuple([ast.Constant(type(op).__name__), _lambda(right)], ast.Load()))
        return _hook("compare", node.left, *rest, at=node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        name = "all_of" if isinstance(node.op, ast.And) else "any_of"
        return _hook(name, *[_lambda(v) for v in node.values], at=node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            return _hook("negate", node.operand, at=node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mod):
            return _hook("percent", node.left, node.right, at=node)
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        if self.nested == 0 and all(map(_rejoins, [*node.body, *node.orelse])):
            return self._branch(node)
        self.generic_visit(node)
        node.test = _hook("truth", node.test, at=node.test)
        return node

    def _branch(self, node: ast.If) -> list[ast.stmt]:
        """The arms as functions, for an `if` behind which they rejoin."""
        self.branches += 1
        n = self.branches
        names = sorted({x.id for part in (*node.body, *node.orelse) for x in ast.walk(part)
                        if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)})
        self.assigned.update(names)
        test = self.visit(node.test)
        out: list[ast.stmt] = []
        for what, body in (("then", node.body), ("else", node.orelse)):
            stmts = [s for stmt in body for s in _as_list(self.visit(stmt))] or [ast.Pass()]
            out.append(_function(f"__sglc_{what}_{n}", "", names, stmts))
        read = ", ".join(f"__sglc__.local(lambda: {x})" for x in names)
        out += ast.parse(f"def __sglc_get_{n}(): return ({read}{',' if names else ''})").body
        assign = "\n    ".join(f"{x} = __v[{i}]" for i, x in enumerate(names)) or "pass"
        out.append(_function(f"__sglc_put_{n}", "__v", names, ast.parse(
            f"if 1:\n    {assign}").body[0].body))  # type: ignore[attr-defined]
        call = _hook("branch", test, *[ast.Name(f"__sglc_{w}_{n}", ast.Load())
                                       for w in ("then", "else", "get", "put")], at=node)
        out.append(ast.Expr(call))
        for stmt in out:
            if not hasattr(stmt, "lineno"):
                ast.copy_location(stmt, node)
            for sub in ast.walk(stmt):
                if isinstance(sub, (ast.expr, ast.stmt, ast.arg)) and not hasattr(sub, "lineno"):
                    ast.copy_location(sub, node)
        return out

    def visit_While(self, node: ast.While) -> ast.stmt:
        self.generic_visit(node)
        node.test = _hook("truth", node.test, at=node.test)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        node.test = _hook("truth", node.test, at=node.test)
        return node

    def visit_For(self, node: ast.For) -> ast.stmt:
        self.generic_visit(node)
        node.iter = _hook("iterate", node.iter, at=node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        self.generic_visit(node)
        node.iter = _hook("iterate", node.iter, at=node.iter)
        node.ifs = [_hook("truth", test, at=test) for test in node.ifs]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            return node
        return _hook("attribute", node.value, ast.Constant(node.attr), at=node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return _hook("item", node.value, node.slice, at=node)
        return node

    def visit_Slice(self, node: ast.Slice) -> ast.expr:
        self.generic_visit(node)
        none = ast.Constant(None)
        call = ast.Call(ast.Name("slice", ast.Load()),
                        [node.lower or none, node.upper or none, node.step or none], [])
        return ast.copy_location(call, node)

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        self.generic_visit(node)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0]
            call = _hook("store", target.value, target.slice, node.value, at=node)
            return ast.copy_location(ast.Expr(call), node)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Attribute):
            target = node.targets[0]
            call = _hook("store_attribute", target.value, ast.Constant(target.attr), node.value,
                         at=node)
            return ast.copy_location(ast.Expr(call), node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit_Assign(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        self.generic_visit(node)
        if isinstance(node.target, ast.Subscript):
            call = _hook("update", node.target.value, node.target.slice,
                         ast.Constant(type(node.op).__name__), node.value, at=node)
            return ast.copy_location(ast.Expr(call), node)
        if isinstance(node.target, ast.Attribute):
            call = _hook("update_attribute", node.target.value, ast.Constant(node.target.attr),
                         ast.Constant(type(node.op).__name__), node.value, at=node)
            return ast.copy_location(ast.Expr(call), node)
        load = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)  # type: ignore
        value = _hook("augment", load, ast.Constant(type(node.op).__name__), node.value, at=node)
        return ast.copy_location(ast.Assign([node.target], value), node)

    def visit_Try(self, node: ast.Try) -> list[ast.stmt]:
        """One host call, then the variables that it bound."""
        outlined = Outlined(node, self.outside, self.closure)
        self.outlined.append(outlined)
        result = f"__sglc_out_{len(self.outlined)}"
        given = [ast.Tuple([ast.Constant(n), _lambda(ast.copy_location(
            ast.Name(n, ast.Load()), node))], ast.Load())
            for n in outlined.locals if n not in outlined.closure]
        out: list[ast.stmt] = [ast.copy_location(ast.Assign(
            [ast.Name(result, ast.Store())],
            _hook("outlined", ast.Constant(len(self.outlined) - 1), *given, at=node)), node)]
        for name in outlined.stores:
            value = _hook("bound", ast.Name(result, ast.Load()), ast.Constant(name), at=node)
            out.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node))
        return out

    def visit_Match(self, node: ast.Match) -> list[ast.stmt]:
        """A chain of ifs over comparisons."""
        self.matches += 1
        name = f"__sglc_subject_{self.matches}"
        subject = ast.copy_location(
            ast.Assign([ast.Name(name, ast.Store())], self.visit(node.subject)), node)
        chain: list[ast.stmt] = []
        for case in reversed(node.cases):
            test = self._matches(name, case.pattern)
            body = [s for stmt in case.body for s in _as_list(self.visit(stmt))]
            names = self._captures(name, case.pattern)
            if case.guard is not None:
                # Names are bound before the guard is asked.
                inner = ast.copy_location(ast.If(
                    _hook("truth", self.visit(case.guard), at=case.guard), body, chain), node)
                body, again = [*names, inner], chain
            else:
                body, again = [*names, *body], chain
            if test is None:
                chain = body
            else:
                chain = [ast.copy_location(ast.If(_hook("truth", test, at=case.pattern), body,
                                                  list(again)), node)]
        return [subject, *chain]

    def _matches(self, name: str, pattern: ast.pattern) -> ast.expr | None:
        """The test of a pattern; None if anything matches."""
        load = ast.copy_location(ast.Name(name, ast.Load()), pattern)
        if isinstance(pattern, ast.MatchValue):
            pair = ast.Tuple([ast.Constant("Eq"), _lambda(self.visit(pattern.value))], ast.Load())
            return _hook("compare", load, pair, at=pattern)
        if isinstance(pattern, ast.MatchSingleton):
            value = ast.copy_location(ast.Constant(pattern.value), pattern)
            pair = ast.Tuple([ast.Constant("Is"), _lambda(value)], ast.Load())
            return _hook("compare", load, pair, at=pattern)
        if isinstance(pattern, ast.MatchAs):
            return None if pattern.pattern is None else self._matches(name, pattern.pattern)
        assert isinstance(pattern, ast.MatchOr)
        tests = [self._matches(name, p) for p in pattern.patterns]
        if any(t is None for t in tests):
            return None
        return _hook("any_of", *[_lambda(t) for t in tests if t is not None], at=pattern)

    def _captures(self, name: str, pattern: ast.pattern) -> list[ast.stmt]:
        if isinstance(pattern, ast.MatchAs) and pattern.name is not None:
            load = ast.Name(name, ast.Load())
            return [ast.copy_location(ast.Assign([ast.Name(pattern.name, ast.Store())], load),
                                      pattern)]
        return []

    def visit_With(self, node: ast.With) -> ast.stmt:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = _hook("context", item.context_expr, at=item.context_expr)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        node.returns = None
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        self.nested += 1
        self.generic_visit(node)
        self.nested -= 1
        return node


def _rejoins(node: ast.stmt) -> bool:
    """Whether an arm's statement always goes on to the next one."""
    if isinstance(node, ast.If):
        return all(map(_rejoins, [*node.body, *node.orelse]))
    if isinstance(node, ast.With):
        return all(map(_rejoins, node.body))
    return isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Pass))


def _function(name: str, argument: str, names: Sequence[str], body: list[ast.stmt]) -> ast.stmt:
    """`def name(argument): nonlocal names; body`."""
    head = f"def {name}({argument}):\n    " + (f"nonlocal {', '.join(names)}" if names else "pass")
    made = ast.parse(head).body[0]
    assert isinstance(made, ast.FunctionDef)
    made.body += body
    return made


def _as_list(node: Any) -> list[ast.stmt]:
    return node if isinstance(node, list) else [node]


def instantiate(code: CodeType, fn: FunctionType, hooks: Any) -> FunctionType:
    """The rewritten form of `fn` over its hooks."""
    import builtins

    inner = next(c for c in code.co_consts
                 if isinstance(c, CodeType) and c.co_name == fn.__name__)
    out = FunctionType(inner, {_HOOKS: hooks, "__builtins__": builtins}, fn.__name__,
                       fn.__defaults__)
    out.__kwdefaults__ = fn.__kwdefaults__
    return out
