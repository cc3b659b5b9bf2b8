"""Rewriting statements that bind, unbind, raise or import: each becomes a call of a hook.

What is assigned through `global`, `nonlocal`, an attribute or an item goes out through a hook;
plain locals stay Python's.
"""

from __future__ import annotations

import ast
from typing import Any

from sglc.errors import Place
from sglc.trace.breaks import GraphBreak
from sglc.trace.scopes import Names

HOOKS = "__sglc__"
_HARMLESS = frozenset({"abs", "float", "int", "len", "max", "min", "repr", "round", "str", "sum"})


def hook(name: str, *args: ast.expr, at: ast.AST) -> ast.Call:
    """A call of a hook."""
    call = ast.Call(ast.Attribute(ast.Name(HOOKS, ast.Load()), name, ast.Load()), list(args), [])
    return ast.copy_location(call, at)


def thunk(body: ast.expr) -> ast.Lambda:
    """`lambda: body`."""
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.copy_location(ast.Lambda(empty, body), body)


def as_list(node: Any) -> list[ast.stmt]:
    return node if isinstance(node, list) else [node]


class Statements(ast.NodeTransformer):
    """The part of the rewriting that is about names, attributes and items being changed."""

    file: str
    names: Names

    def __init__(self) -> None:
        self.temporaries = 0
        self.walrus: list[set[str]] = [set()]  # names bound by `:=`, by open function

    def temporary(self) -> str:
        """A name of our own."""
        self.temporaries += 1
        return f"__sglc_t_{self.temporaries}"

    # -- binding --------------------------------------------------------------------------
    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        self.generic_visit(node)
        if len(node.targets) == 1:
            return self._store(node.targets[0], node.value, node)
        name = self.temporary()
        out: list[ast.stmt] = [ast.copy_location(
            ast.Assign([ast.Name(name, ast.Store())], node.value), node)]
        for target in node.targets:
            out += self._store(target, ast.copy_location(ast.Name(name, ast.Load()), node), node)
        return out

    def _store(self, target: ast.expr, value: ast.expr, at: ast.stmt) -> list[ast.stmt]:
        """`target = value`; both are rewritten already."""
        if isinstance(target, ast.Subscript):
            call = hook("store", value, target.value, target.slice, at=at)
        elif isinstance(target, ast.Attribute):
            call = hook("store_attribute", value, target.value, ast.Constant(target.attr), at=at)
        elif isinstance(target, ast.Name) and target.id in self.names.outward:
            call = hook("store_name", ast.Constant(target.id), value, at=at)
        elif isinstance(target, (ast.Tuple, ast.List)):
            return self._unpack(target, value, at)
        else:
            return [ast.copy_location(ast.Assign([target], value), at)]
        return [ast.copy_location(ast.Expr(call), at)]

    def _unpack(self, target: ast.Tuple | ast.List, value: ast.expr,
                at: ast.stmt) -> list[ast.stmt]:
        """Give the parts of a value to the parts of a target."""
        star = next((i for i, t in enumerate(target.elts) if isinstance(t, ast.Starred)), None)
        before = len(target.elts) if star is None else star
        after = ast.Constant(None if star is None else len(target.elts) - star - 1)
        items = hook("unpack", value, ast.Constant(before), after, at=at)
        names: list[ast.expr] = []
        rest: list[ast.stmt] = []
        parts = [p.value if isinstance(p, ast.Starred) else p for p in target.elts]
        plain = all(isinstance(p, ast.Name) and p.id not in self.names.outward for p in parts)
        for part in parts:
            if plain:
                names.append(part)
                continue  # else they are assigned one after the other: one may use another
            name = self.temporary()
            names.append(ast.Name(name, ast.Store()))
            rest += self._store(part, ast.copy_location(ast.Name(name, ast.Load()), at), at)
        whole = ast.Assign([ast.Tuple(names, ast.Store())], items)
        return [ast.copy_location(whole, at), *rest]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> list[ast.stmt]:
        if node.value is None:
            return [ast.copy_location(ast.Pass(), node)]
        return self.visit_Assign(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        calls = ast.Constant(any(
            isinstance(n, ast.Await) or (isinstance(n, ast.Call) and not (
                isinstance(n.func, ast.Name) and n.func.id in _HARMLESS))
            for n in ast.walk(node.value)))
        self.generic_visit(node)
        op = ast.Constant(type(node.op).__name__)
        rest = (op, thunk(node.value), calls)
        call: ast.expr | None = None
        if isinstance(node.target, ast.Subscript):
            call = hook("update", node.target.value, node.target.slice, *rest, at=node)
        elif isinstance(node.target, ast.Attribute):
            call = hook("update_attribute", node.target.value, ast.Constant(node.target.attr),
                        *rest, at=node)
        elif node.target.id in self.names.outward:
            call = hook("update_name", ast.Constant(node.target.id), *rest, at=node)
        if call is not None:
            return ast.copy_location(ast.Expr(call), node)
        assert isinstance(node.target, ast.Name)
        name = node.target.id
        load = ast.copy_location(ast.Name(name, ast.Load()), node)
        value = hook("augment", load, op, node.value, at=node)
        return ast.copy_location(ast.Assign([node.target], value), node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.expr:
        """Through a function, because hooks may take what is around it as a lambda."""
        value = self.visit(node.value)
        if node.target.id in self.names.outward:
            return hook("store_name", ast.Constant(node.target.id), value, at=node)
        self.walrus[-1].add(node.target.id)
        setter = ast.Name(f"__sglc_set_{node.target.id}", ast.Load())
        return ast.copy_location(ast.Call(setter, [value], []), node)

    def setters(self, names: set[str], at: ast.stmt) -> list[ast.stmt]:
        """What stands at the top of a function for the names that `:=` binds in it."""
        out: list[ast.stmt] = []
        for name in sorted(names):
            source = (f"if 0: {name} = None\n"
                      f"def __sglc_set_{name}(__v):\n"
                      f"    nonlocal {name}\n    {name} = __v\n    return {name}")
            out += [ast.copy_location(s, at) for s in ast.parse(source).body]
        for stmt in out:
            for n in ast.walk(stmt):
                if isinstance(n, (ast.expr, ast.stmt, ast.arg)):
                    ast.copy_location(n, at)
        return out

    def visit_Global(self, node: ast.Global) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.stmt:
        names = [n for n in node.names if n not in self.names.outward]
        return ast.copy_location(ast.Nonlocal(names) if names else ast.Pass(), node)

    def not_outward(self, target: ast.AST) -> None:
        """Break where a name from outside is bound by something else than an assignment."""
        for n in ast.walk(target):
            if isinstance(n, ast.Name) and n.id in self.names.outward and not isinstance(
                    n.ctx, ast.Load):
                raise GraphBreak(
                    "SGLC113", f"the name {n.id!r} from outside is bound here",
                    place=Place(self.file, n.lineno, n.col_offset + 1),
                    fixes=("assign it: name = value",))

    # -- unbinding ------------------------------------------------------------------------
    def visit_Delete(self, node: ast.Delete) -> list[ast.stmt]:
        self.generic_visit(node)
        out: list[ast.stmt] = []
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                call = hook("delete_item", target.value, target.slice, at=node)
            elif isinstance(target, ast.Attribute):
                call = hook("delete_attribute", target.value, ast.Constant(target.attr), at=node)
            else:
                self.not_outward(target)
                out.append(ast.copy_location(ast.Delete([target]), node))
                continue
            out.append(ast.copy_location(ast.Expr(call), node))
        return out

    # -- raising --------------------------------------------------------------------------
    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        self.generic_visit(node)
        given = [] if node.exc is None else [node.exc]
        given += [] if node.cause is None else [node.cause]
        return ast.copy_location(ast.Expr(hook("throw", *given, at=node)), node)

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if not __debug__:
            return ast.copy_location(ast.Pass(), node)
        self.generic_visit(node)
        message = [] if node.msg is None else [node.msg]
        failed = ast.copy_location(ast.Expr(hook("failed", *message, at=node)), node)
        return ast.copy_location(ast.If(
            hook("truth", node.test, at=node.test), [ast.copy_location(ast.Pass(), node)],
            [failed]), node)

    # -- imports --------------------------------------------------------------------------
    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            value = hook("imported", ast.Constant(alias.name), ast.Constant(whole), at=node)
            out += self._store(ast.Name(alias.asname or whole, ast.Store()), value, node)
        return out

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        name = "." * node.level + (node.module or "")
        out: list[ast.stmt] = []
        for alias in node.names:
            value = hook("imported_from", ast.Constant(name), ast.Constant(alias.name), at=node)
            out += self._store(ast.Name(alias.asname or alias.name, ast.Store()), value, node)
        return out
