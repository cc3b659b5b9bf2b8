"""Which names of a function are its own, and which belong to something outside.

Works on the syntax tree and the code object as Python compiled it.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType

from sglc.errors import Place
from sglc.trace.breaks import GraphBreak

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Names:
    """outside: globals and closure variables that are read.  outward: those that are assigned
    (`global`, `nonlocal`).  closure: the closure variables.  shared: locals of the function that
    functions inside it assign.  rebound: locals that are assigned more than once.  bound: what
    the function or one inside it binds (but for `except ... as`).
    """

    outside: frozenset[str]
    outward: frozenset[str]
    closure: frozenset[str]
    shared: frozenset[str]
    rebound: frozenset[str]
    bound: frozenset[str]


def names_of(fn: FunctionType, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Names:
    """The names of a function; GraphBreak if one is both local and from outside."""
    outside = set(fn.__code__.co_freevars)
    todo = [fn.__code__]
    while todo:
        code = todo.pop()
        outside.update(i.argval for i in dis.get_instructions(code)
                       if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
        todo.extend(c for c in code.co_consts if isinstance(c, CodeType))
    closure = frozenset(fn.__code__.co_freevars)
    outward: set[str] = set()
    shared: set[str] = set()
    bound: set[str] = set()
    for function in (n for n in ast.walk(node) if isinstance(n, _FUNCTIONS)):
        declared: set[str] = set()
        for n in own(function):
            if isinstance(n, ast.Global):
                declared.update(n.names)
                outward.update(n.names)
            elif isinstance(n, ast.Nonlocal):
                declared.update(n.names)
                outward.update(closure & set(n.names))
                shared.update(set(n.names) - closure)
        bound |= stored(function) - declared
        bound |= {n.arg for n in own(function) if isinstance(n, ast.arg)}
    if both := sorted((outside | outward) & bound):
        place = Place(fn.__code__.co_filename, node.lineno)
        raise GraphBreak("SGLC111", f"the name {both[0]!r} is both local and from outside",
                         place=place, fixes=("rename one of the two",))
    mine = stored(node) | {n.arg for n in own(node) if isinstance(n, ast.arg)}
    return Names(frozenset(outside), frozenset(outward), closure, frozenset(shared & mine),
                 frozenset(_rebound(node)), frozenset(bound))


def own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, _FUNCTIONS):
            yield from own(child)


def stored(function: ast.AST) -> set[str]:
    """The names that a function binds itself."""
    out: set[str] = set()
    for n in own(function):
        if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load):
            out.add(n.id)
        elif isinstance(n, (*_FUNCTIONS, ast.ClassDef)):
            out.add(n.name)
        elif isinstance(n, ast.alias):
            out.add(n.asname or n.name.partition(".")[0])
    return out


def _rebound(function: ast.AST) -> set[str]:
    seen: set[str] = set()
    out: set[str] = {n.arg for n in own(function) if isinstance(n, ast.arg)} & stored(function)
    for n in own(function):
        if isinstance(n, (ast.For, ast.While)):
            out |= stored(n)
        elif isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load):
            if n.id in seen or isinstance(n.ctx, ast.Del):
                out.add(n.id)
            seen.add(n.id)
    return out
