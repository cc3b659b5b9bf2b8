"""Hooks for what a program changes: items, attributes, names from outside, `x += y`.

What the body made is changed while tracing; what is from outside, or known to the run only, by a
host call.  Knows no calls: a method that changes what it is of is for `methods.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sglc.ir import types
from sglc.lang.expressions import Expr
from sglc.trace.breaks import NotMergeable
from sglc.trace.containers import OWN
from sglc.trace.frozen import Frozen, HostMethod
from sglc.trace.objects import ITEMS, acts
from sglc.trace.of_states import holds_state
from sglc.trace.operators import Operators
from sglc.trace.symbols import Method, Sym, is_symbolic
from sglc.trace.updates import Attribute, Item, Variable, changed
from sglc.trace.values import CONTAINERS, kind_of, run_time_symbol, traced

_INPLACE: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd, "Sub": operator.isub, "Mult": operator.imul,
    "Div": operator.itruediv, "FloorDiv": operator.ifloordiv, "Mod": operator.imod,
    "Pow": operator.ipow, "BitOr": operator.ior, "BitAnd": operator.iand,
    "BitXor": operator.ixor, "LShift": operator.ilshift, "RShift": operator.irshift,
}


class Changes(Operators):
    """The hooks that stand for assignments, plain and augmented."""

    # -- items ----------------------------------------------------------------------------
    def store(self, value: Any, container: Any, key: Any) -> None:
        """`container[key] = value`; Python makes the value first."""
        if run_time_symbol(key) and holds_state(value) and not traced(container):
            key = self.session.concrete(key, "a key")
        container = self.own(container, key)
        if traced(container):
            value = self.now(value)
        if not self._outside_store(container, "setitem", key, value):
            container[key] = value

    def update(self, container: Any, key: Any, op: str, value: Callable[[], Any],
               calls: bool) -> None:
        """`container[key] += value()`.  calls: whether `value` calls anything: then what was
        there is read before."""
        container = self.own(container, key)
        if type(container) in OWN or traced(container):
            self.store(self.augment(self.item(container, key), op, value()), container, key)
        elif calls:
            old = self.session.host("getitem", operator.getitem, container, key)
            self.store(self.augment(old, op, value()), container, key)
        else:
            self._may_change(container)
            self._updated(container, Item, key, op, value())

    def _outside_store(self, container: Any, name: str, key: Any, value: Any) -> bool:
        """Record a store to something from outside; False if it is the body's own."""
        if traced(container) or type(container) in (list, dict):
            return False
        self._may_change(container)
        self.hand(value)
        self.session.host(name, operator.setitem, container, key, value)
        return True

    def _may_change(self, container: Any) -> None:
        if isinstance(container, Frozen):
            if container.operand is None and container.read is None:
                raise self.session.broken("SGLC113", f"an item of {container.what} is changed")
            container.live = True

    # -- attributes and names -------------------------------------------------------------
    def store_attribute(self, value: Any, owner: Any, name: str) -> None:
        """`owner.name = value`."""
        if traced(owner) or isinstance(owner, (Method, HostMethod, Expr)):
            raise self.session.broken("SGLC113", f"an attribute of {kind_of(owner)} is changed")
        self.hand(value)
        self.session.host("setattr", setattr, owner, name, value)

    def update_attribute(self, owner: Any, name: str, op: str, value: Callable[[], Any],
                         calls: bool) -> None:
        """`owner.name += value` and the like."""
        owner = self.now(owner)
        if traced(owner) or isinstance(owner, Expr):
            raise self.session.broken("SGLC113", f"an attribute of {kind_of(owner)} is changed")
        if calls:
            old = self.session.host("getattr", getattr, owner, name)
            self.store_attribute(self.augment(old, op, value()), owner, name)
        else:
            self._updated(owner, Attribute, name, op, value())

    def update_name(self, name: str, op: str, value: Callable[[], Any], calls: bool) -> None:
        """`name += value()` for a name from outside."""
        if calls:
            old = self.live_name(name)
            self.store_name(name, self.augment(old, op, value()))
            return
        new = self._updated(self.variable(name), Variable, name, op, value())
        self.session.stored[self._key(name)] = new, self.session.hosts

    # -- in place -------------------------------------------------------------------------
    def augment(self, left: Any, op: str, right: Any) -> Any:
        left, right = self.now(left), self.now(right)
        if op == "Mod":
            return self.percent(left, right)
        if op in ("Add", "Sub") and isinstance(left, Sym) and left.type == types.INT and (
                type(right) is int or (isinstance(right, Sym) and right.type == types.INT)):
            return self.session.compute(op.lower(), left, right)
        if isinstance(left, Sym) and left.recipe is None and not left.is_text:
            self.hand(right)
            return self.session.host("i" + op.lower(), _INPLACE[op], left, right)
        if isinstance(left, Frozen):
            if left.operand is None and left.read is None:
                raise self.session.broken("SGLC113", f"{left.what} is changed in place")
            left.live = True
            self.hand(right)
            self.session.host("i" + op.lower(), _INPLACE[op], left, right)
            return left
        if not (traced(left) or is_symbolic(left) or isinstance(left, (*CONTAINERS, Expr))):
            self.hand(right)
            return self.session.host("i" + op.lower(), _INPLACE[op], left, right)
        self._no_change(left)
        if type(left) in OWN and run_time_symbol(right):
            self.hand(left)
            return self.session.host("i" + op.lower(), _INPLACE[op], left, right)
        if isinstance(left, list) and isinstance(right, Frozen):
            right = list(right)
        elif type(left) in OWN:
            right = list(self.iterate(right)) if acts(right, *ITEMS) else right
        return _INPLACE[op](left, right)

    def _updated(self, owner: Any, place: Any, key: Any, op: str, value: Any) -> Sym:
        """One host call, so that rows that count on one object do not come in between."""
        value = self.now(value)
        self.hand(value)
        return self.session.host("update", changed, place, owner, key, _INPLACE[op], value)

    def _no_change(self, container: Any) -> None:
        """Arms of an `if` that are traced both must not change containers of the body."""
        if self.session.depth and type(container) in (list, dict, set):
            raise NotMergeable
