"""Hooks of rewritten code for operators, comparisons, items, loops and stores."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

from sglc.ir import types
from sglc.lang import expressions
from sglc.trace.breaks import NotMergeable
from sglc.trace.guards import MISSING
from sglc.trace.session import Session
from sglc.trace.symbols import (
    Frozen,
    HostMethod,
    Method,
    Partial,
    Sym,
    contains_symbol,
    is_symbolic,
)

CONTAINERS = (list, dict, tuple, set, frozenset, str, int, float, bool, range, bytes,
               type(None), re.Match)

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le,
    "Gt": operator.gt, "GtE": operator.ge, "Is": operator.is_, "IsNot": operator.is_not,
    "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b,
}
_INPLACE: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd, "Sub": operator.isub, "Mult": operator.imul,
    "Div": operator.itruediv, "FloorDiv": operator.ifloordiv, "Mod": operator.imod,
    "Pow": operator.ipow, "BitOr": operator.ior, "BitAnd": operator.iand,
    "BitXor": operator.ixor, "LShift": operator.ilshift, "RShift": operator.irshift,
}


def traced(value: Any) -> bool:
    """Whether a value belongs to the trace (a state, a group of states, ...)."""
    return getattr(type(value), "__sglc_traced__", False)


class Operators:
    """The hooks that stand for Python's operators and statements."""

    session: Session

    def _concrete(self, value: Any, what: str) -> Any:
        raise NotImplementedError

    def attribute(self, value: Any, name: str) -> Any:
        raise NotImplementedError

    # -- operators ------------------------------------------------------------------------
    def fstring(self, *parts: Any) -> Any:
        return self.session.format(parts)

    def percent(self, left: Any, right: Any) -> Any:
        if isinstance(left, str) and contains_symbol(right):
            values = right if isinstance(right, tuple) else (right,)
            pieces = left.split("%s")
            if "%" in "".join(pieces) or len(pieces) != len(values) + 1:
                raise self.session.broken("SGLC111", f"the format {left!r} % ...",
                                          fixes=("use an f-string",))
            parts: list[Any] = [pieces[0]]
            for value, piece in zip(values, pieces[1:], strict=True):
                parts += [(value, "s", ""), piece]
            return self.session.format(parts)
        return left % right

    def compare(self, left: Any, *rest: tuple[str, Callable[[], Any]]) -> Any:
        result: Any = True
        for i, (op, thunk) in enumerate(rest):
            if i and not self.session.truth(result):
                return result
            right = thunk()
            result = self._compare_one(op, left, right)
            left = right
        return result

    def _compare_one(self, op: str, left: Any, right: Any) -> Any:
        session = self.session
        if op in ("Is", "IsNot"):
            found = self._identity(left, right)
            return found if op == "Is" else self.negate(found)
        if op in ("In", "NotIn"):
            found = self._contains(left, right)
            return found if op == "In" else self.negate(found)
        if isinstance(left, Sym) or isinstance(right, Sym):
            if any(traced(v) for v in (left, right)):
                raise session.need(left, "a comparison")
            if any(isinstance(v, Frozen) or type(v) in (list, tuple, dict, set)
                   for v in (left, right)):
                return session.host(op, _OPERATORS[op], left, right)
            name = {"Eq": "eq", "NotEq": "ne", "Lt": "lt", "LtE": "le", "Gt": "gt",
                    "GtE": "ge"}[op]
            return session.compute(name, left, right)
        if run_time(left) or run_time(right):
            return session.host(op, _OPERATORS[op], left, right)
        if contains_symbol(left) or contains_symbol(right):
            left, right = (self._concrete(v, "a comparison") for v in (left, right))
        return _OPERATORS[op](left, right)

    def _identity(self, left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, Partial):
                value.refuse()
        for a, b in ((left, right), (right, left)):
            if isinstance(a, (Sym, Frozen)):
                opaque = isinstance(a, Sym) and a.type.name in ("any", "json", "bool")
                if opaque and a.recipe is None:
                    return self.session.host("is", operator.is_, left, right)
                if b is None or b is True or b is False:
                    if opaque:
                        raise self.session.need(a, "its identity")
                    return False  # None and booleans are never symbolic
                if a is b:
                    return True
                raise self.session.need(a, "its identity")
        return left is right

    def _contains(self, item: Any, container: Any) -> Any:
        if isinstance(container, Sym):
            return self.session.compute("contains", container, item)
        if isinstance(container, str) and isinstance(item, Sym):
            return self.session.compute("contains", container, item)
        if traced(container):
            return item in container
        if isinstance(container, Frozen):
            container = container._keys() if container.names is not None else container._values()
        if isinstance(container, (dict, set, frozenset)) and isinstance(item, Sym):
            container = list(container)
        if isinstance(container, (list, tuple)):
            return any(self.session.truth(self._compare_one("Eq", item, x)) for x in container)
        return item in container

    def negate(self, value: Any) -> Any:
        if isinstance(value, Sym) and (value.recipe is None):
            return self.session.compute("not", value)
        return not self.truth(value)

    def truth(self, value: Any) -> bool:
        return self.session.truth(value)

    def all_of(self, *thunks: Callable[[], Any]) -> Any:
        value: Any = None
        for i, thunk in enumerate(thunks):
            value = thunk()
            if i < len(thunks) - 1 and not self.truth(value):
                return value
        return value

    def any_of(self, *thunks: Callable[[], Any]) -> Any:
        value: Any = None
        for i, thunk in enumerate(thunks):
            value = thunk()
            if i < len(thunks) - 1 and self.truth(value):
                return value
        return value

    # -- items, loops, scopes -------------------------------------------------------------
    def iterate(self, value: Any) -> Iterable[Any]:
        if isinstance(value, Sym):
            return self.session.elements(value)  # type: ignore[no-any-return]
        return value  # type: ignore[no-any-return]

    def item(self, value: Any, key: Any) -> Any:
        if isinstance(key, Sym) and not isinstance(value, (Sym, Frozen)):
            if key.recipe is None and type(value) in (list, tuple, dict) and not _holds_traced(
                    value):
                return self.session.host("getitem", operator.getitem, value, key)
            key = self.session.concrete(key, "an index")
        return value[key]

    def store(self, container: Any, key: Any, value: Any) -> None:
        self._no_change(container)
        if not self._outside_store(container, "setitem", key, value):
            container[key] = value

    def update(self, container: Any, key: Any, op: str, value: Any) -> None:
        new = self.augment(self.item(container, key), op, value)
        self.store(container, key, new)

    def _no_change(self, container: Any) -> None:
        """Arms of an `if` that are traced both must not change containers of the body."""
        if self.session.depth and type(container) in (list, dict, set):
            raise NotMergeable

    def branch(self, test: Any, then: Callable[[], None], otherwise: Callable[[], None],
               get: Callable[[], tuple[Any, ...]], put: Callable[[tuple[Any, ...]], None]) -> None:
        """An `if` whose arms are functions of the locals that they assign."""
        session = self.session
        if isinstance(test, Sym) and (test.recipe is None or test.example is MISSING):
            if test.type != types.BOOL:
                test = session.compute("bool", test)
            if session.branch(test, then, otherwise, get, put):
                return
        if session.truth(test):
            then()
        else:
            otherwise()

    def _outside_store(self, container: Any, name: str, key: Any, value: Any) -> bool:
        """Record a store to something from outside; False if it is the body's own."""
        if traced(container) or type(container) in (list, dict):
            return False
        if isinstance(container, Frozen) and container.operand is None \
                and container.read is None:
            raise self.session.broken("SGLC113", f"an item of {container.what} is changed")
        if isinstance(container, Frozen):
            container.live = True
        self.session.host(name, operator.setitem, container, key, value)
        return True

    def store_attribute(self, owner: Any, name: str, value: Any) -> None:
        """`owner.name = value`."""
        if traced(owner) or isinstance(owner, (Method, HostMethod, expressions.Expr)):
            raise self.session.broken("SGLC113", f"an attribute of {kind_of(owner)} is changed")
        self.session.host("setattr", setattr, owner, name, value)

    def update_attribute(self, owner: Any, name: str, op: str, value: Any) -> None:
        """`owner.name += value` and the like."""
        self.store_attribute(owner, name, self.augment(self.attribute(owner, name), op, value))

    def augment(self, left: Any, op: str, right: Any) -> Any:
        if op == "Mod":
            return self.percent(left, right)
        if isinstance(left, Sym) and left.recipe is None and not left.is_text:
            return self.session.host("i" + op.lower(), _INPLACE[op], left, right)
        if isinstance(left, Frozen):
            if left.operand is None and left.read is None:
                raise self.session.broken("SGLC113", f"{left.what} is changed in place")
            left.live = True
            self.session.host("i" + op.lower(), _INPLACE[op], left, right)
            return left
        if not (traced(left) or is_symbolic(left) or isinstance(left, (*CONTAINERS,
                                                                      expressions.Expr))):
            return self.session.host("i" + op.lower(), _INPLACE[op], left, right)
        self._no_change(left)
        if isinstance(left, list) and isinstance(right, Frozen):
            right = list(right)
        return _INPLACE[op](left, right)

    def context(self, manager: Any) -> Any:
        if traced(manager) or isinstance(manager, expressions.RoleScope):
            return manager
        raise self.session.broken("SGLC111", f"with {kind_of(manager)}")


def run_time(value: Any, depth: int = 6) -> bool:
    """Whether a value depends on the model or a host call, looking into plain containers."""
    if isinstance(value, Sym):
        return value.recipe is None
    if isinstance(value, Frozen):
        return any(run_time(v, depth - 1) for v in value.elements) if depth else True
    if type(value) in (list, tuple, set, frozenset):
        return any(run_time(v, depth - 1) for v in value) if depth else True
    if type(value) is dict:
        return any(run_time(v, depth - 1) for p in value.items() for v in p) if depth else True
    return False


def _holds_traced(value: Any) -> bool:
    items = value.values() if type(value) is dict else value
    return any(traced(v) or isinstance(v, expressions.Expr) for v in items)


def kind_of(value: Any) -> str:
    if isinstance(value, Frozen):
        return value.what
    return f"a {type(value).__name__}"
