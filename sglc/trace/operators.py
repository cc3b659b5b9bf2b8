"""Hooks of rewritten code for operators, comparisons, items, loops and stores."""

from __future__ import annotations

import operator
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sglc.ir import types
from sglc.lang.expressions import Expr
from sglc.lang.prompt_surface import RoleScope
from sglc.trace.bound_methods import VIEWS
from sglc.trace.breaks import NotMergeable
from sglc.trace.containers import OWN, run_time_symbol
from sglc.trace.frozen import Frozen, HostMethod
from sglc.trace.functions import Functions
from sglc.trace.groups import LoopGroup
from sglc.trace.guards import MISSING
from sglc.trace.hosts import formatted, itself
from sglc.trace.objects import EQUAL, ITEMS, ORDER, TEXT, TRUTH, acts, acts_inside, item_of
from sglc.trace.of_states import holds_state
from sglc.trace.sequences import Seq
from sglc.trace.symbols import (
    Method,
    Partial,
    Sym,
    contains_symbol,
    is_symbolic,
)
from sglc.trace.updates import Attribute, Item, Variable, changed

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

_BINARY: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "Add": ("add", operator.add), "Sub": ("sub", operator.sub), "Mult": ("mul", operator.mul),
    "Div": ("truediv", operator.truediv), "FloorDiv": ("floordiv", operator.floordiv),
    "Mod": ("mod", operator.mod), "Pow": ("pow", operator.pow), "BitOr": ("or", operator.or_),
    "BitAnd": ("and", operator.and_), "BitXor": ("xor", operator.xor),
    "LShift": ("lshift", operator.lshift), "RShift": ("rshift", operator.rshift),
    "MatMult": ("matmul", operator.matmul)}
_UNARY: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "USub": ("neg", operator.neg), "UAdd": ("pos", operator.pos),
    "Invert": ("invert", operator.invert)}
_COMPARED = {"Eq": EQUAL, "NotEq": EQUAL, "Lt": ORDER, "LtE": ORDER, "Gt": ORDER, "GtE": ORDER}


def traced(value: Any) -> bool:
    """Whether a value belongs to the trace (a state, a group of states, ...)."""
    return getattr(type(value), "__sglc_traced__", False)


class Operators(Functions):
    """The hooks that stand for Python's operators and statements."""

    @abstractmethod
    def _concrete(self, value: Any, what: str) -> Any:
        """A value without symbols; what: what it is needed for, for the error if there is none."""

    # -- operators ------------------------------------------------------------------------
    def fstring(self, *parts: Any) -> Any:
        return self.session.format([p if isinstance(p, str) else self._field(*p) for p in parts])

    def _field(self, value: Any, conversion: str, spec: Any) -> tuple[Any, str, Any]:
        """A field of an f-string, formatted by a host call if how is known only at run time."""
        value = self.now(value)
        if run_time_symbol(spec) or acts_inside(value, *TEXT):
            return self.session.host("format", formatted, value, conversion, spec), "", ""
        return value, conversion, spec

    def percent(self, left: Any, right: Any) -> Any:
        left, right = self.now(left), self.now(right)
        if acts_inside(right, *TEXT, "__getitem__") and isinstance(left, str):
            return self.session.host("format", operator.mod, left, right)
        if isinstance(left, str) and contains_symbol(right):
            values = right if isinstance(right, tuple) else (right,)
            pieces = left.split("%s")
            if "%" in "".join(pieces) or len(pieces) != len(values) + 1 or any(
                    isinstance(v, (Frozen, list, tuple, dict, set)) for v in values):
                return self.session.host("format", operator.mod, left, right)
            parts: list[Any] = [pieces[0]]
            for value, piece in zip(values, pieces[1:], strict=True):
                parts += [(value, "s", ""), piece]
            return self.session.format(parts)
        return self.binary("Mod", left, right)

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
        left, right = self.now(left), self.now(right)
        if op in _COMPARED and any(acts_inside(v, *_COMPARED[op]) for v in (left, right)):
            return session.host(op, _OPERATORS[op], left, right)
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
        if run_time(left) or run_time(right) or outside_set(left) or outside_set(right):
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
                if isinstance(a, Sym) and a.recipe is None and (opaque or not (
                        b is None or isinstance(b, bool))):
                    return self.session.host("is", operator.is_, left, right)
                if b is None or b is True or b is False:
                    if opaque:
                        raise self.session.need(a, "its identity")
                    return False  # None and booleans are never symbolic
                if a is b:
                    return True
                if isinstance(a, Frozen) and (a.read is not None or a.argument is not None):
                    return self.session.host("is", operator.is_, left, right)  # real objects
                raise self.session.need(a, "its identity")
        return left is right

    def _contains(self, item: Any, container: Any) -> Any:
        if acts(container, "__contains__", *ITEMS) or (type(container) in (list, tuple) and any(
                acts(v, *EQUAL) for v in (item, *container))):
            return self.session.host("in", in_container, item, container)
        if isinstance(container, Sym):
            return self.session.compute("contains", container, item)
        if isinstance(container, str) and isinstance(item, Sym):
            return self.session.compute("contains", container, item)
        if traced(container):
            return item in container
        whole = container
        if isinstance(container, Frozen):
            container = container._keys() if container.names is not None else container._values()
        if isinstance(container, (dict, set, frozenset, *VIEWS)) and isinstance(item, Sym):
            container = list(container)
        if run_time_symbol(item) and item.type.name != "choice" and isinstance(
                container, (list, tuple)) and not any(map(traced, container)):
            return self._one_of(item, container)
        if isinstance(container, (list, tuple)):
            if self.session.by_identity(item, container):
                return self.session.host("in", in_container, item, whole)
            return any(item is x or self.session.truth(self._compare_one("Eq", item, x))
                       for x in container)
        return item in container

    def _one_of(self, item: Sym, container: Any) -> Any:
        """`item in container` as one value."""
        if item.is_text and all(type(x) is str for x in container):
            return self.session.compute("contains", tuple(container), item)
        return self.session.host("in", in_container, item, container)

    def negate(self, value: Any) -> Any:
        value = self._truth_of(self.now(value))
        if isinstance(value, Sym) and (value.recipe is None):
            return self.session.compute("not", value)
        return not self.truth(value)

    def truth(self, value: Any) -> bool:
        self.session.count_step()
        return self.session.truth(self._truth_of(self.now(value)))

    def _truth_of(self, value: Any) -> Any:
        """What `bool(value)` gives, where that is not for the trace to ask."""
        return self.session.host("bool", bool, value) if acts(value, *TRUTH) else value

    def all_of(self, *thunks: Callable[[], Any]) -> Any:
        value: Any = None
        for i, thunk in enumerate(thunks):
            value = thunk()
            if i < len(thunks) - 1 and not self.truth(value):
                return value
        return value

    def all_true(self, *thunks: Callable[[], Any]) -> Any:
        """`all_of` where only the truth of the result matters."""
        *first, last = thunks
        return all(self.truth(thunk()) for thunk in first) and last()

    def any_true(self, *thunks: Callable[[], Any]) -> Any:
        """`any_of` where only the truth of the result matters."""
        *first, last = thunks
        return any(self.truth(thunk()) for thunk in first) or last()

    def any_of(self, *thunks: Callable[[], Any]) -> Any:
        value: Any = None
        for i, thunk in enumerate(thunks):
            value = thunk()
            if i < len(thunks) - 1 and self.truth(value):
                return value
        return value

    # -- items, loops, scopes -------------------------------------------------------------
    def iterate(self, value: Any) -> Iterable[Any]:
        value = self.opaque(self.now(value), *ITEMS)
        if type(value) in OWN:
            return self.walk(value)
        if isinstance(value, Sym):
            return self.session.elements(value)  # type: ignore[no-any-return]
        if type(value) in (tuple, dict, str, Frozen) or traced(value):
            return value  # type: ignore[no-any-return]
        return self._rounds(iter(value))

    def _rounds(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """The items of something that may go on for ever."""
        for item in iterator:
            self.session.count_step()
            yield item

    def item(self, value: Any, key: Any) -> Any:
        value, key = self.now(value), self.now(key)
        if acts(value, "__getitem__") or acts(key, "__index__"):
            return self.session.host("getitem", item_of, value, key)
        if run_time_symbol(key) and key.type.name == "choice" and _holds_functions(value):
            for choice in key.type.args:
                if self.truth(self._compare_one("Eq", key, choice)):
                    return value[choice]
        if isinstance(key, Sym) and not isinstance(value, (Sym, Frozen, Seq, LoopGroup)):
            if key.recipe is None and type(value) in (list, tuple, dict) and not _holds_traced(
                    value):
                self.hand_holder(value)
                return self.session.host("getitem", operator.getitem, value, key)
            key = self.session.concrete(key, "an index")
        return value[key]

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

    def _updated(self, owner: Any, place: Any, key: Any, op: str, value: Any) -> Sym:
        """One host call, so that rows that count on one object do not come in between."""
        value = self.now(value)
        self.hand(value)
        return self.session.host("update", changed, place, owner, key, _INPLACE[op], value)

    def _no_change(self, container: Any) -> None:
        """Arms of an `if` that are traced both must not change containers of the body."""
        if self.session.depth and type(container) in (list, dict, set):
            raise NotMergeable

    def loop(self, items: Any, body: Callable[[Any], None], get: Callable[[], tuple[Any, ...]],
             put: Callable[[tuple[Any, ...]], None], own: tuple[int, ...]) -> None:
        """A `for` whose rounds are calls, in traces of any length."""
        seq = self.session.sequence(items)
        if seq is not None:
            self.session.run_loop(seq, body, get, put, own)
            return
        for item in self.iterate(items):
            body(item)

    def mapped(self, items: Any, fn: Callable[[Any], Any]) -> Any:
        """A list comprehension, likewise."""
        seq = self.session.sequence(items)
        if seq is not None:
            return self.session.collect(seq, fn)
        return [fn(item) for item in self.iterate(items)]

    def branch(self, test: Any, then: Callable[[], None], otherwise: Callable[[], None],
               get: Callable[[], tuple[Any, ...]], put: Callable[[tuple[Any, ...]], None]) -> None:
        """An `if` whose arms are functions of the locals that they assign."""
        session = self.session
        test = self._truth_of(test)
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
        self._may_change(container)
        self.hand(value)
        self.session.host(name, operator.setitem, container, key, value)
        return True

    def _may_change(self, container: Any) -> None:
        if isinstance(container, Frozen):
            if container.operand is None and container.read is None:
                raise self.session.broken("SGLC113", f"an item of {container.what} is changed")
            container.live = True

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

    def binary(self, op: str, left: Any, right: Any) -> Any:
        """`left + right`, `left - right` and the like."""
        left, right = self.now(left), self.now(right)
        name, fn = _BINARY[op]
        if any(map(run_time_symbol, (left, right))) and any(
                type(v) in (*OWN, tuple) for v in (left, right)):
            return self.session.host(op.lower(), fn, left, right)
        own = acts(left, f"__{name}__") or acts(right, f"__r{name}__")
        if outside_set(left) or outside_set(right) or (own and not any(
                traced(v) or isinstance(v, Expr) for v in (left, right))):
            return self.session.host(op.lower(), fn, left, right)
        return fn(left, right)

    def unary(self, op: str, value: Any) -> Any:
        """`-value`, `+value`, `~value`."""
        value = self.now(value)
        name, fn = _UNARY[op]
        return self.session.host(name, fn, value) if acts(value, f"__{name}__") else fn(value)

    def opaque(self, value: Any, *names: str) -> Any:
        """The value, as one of the run if such a special method of it is not for the trace to
        call."""
        return self.session.host("object", itself, value) if acts(value, *names) else value

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

    def context(self, manager: Any) -> Any:
        if traced(manager) or isinstance(manager, RoleScope):
            return manager
        raise self.session.broken(
            "SGLC111", f"the tracer cannot follow a with block on {kind_of(manager)}",
            fixes=("move the block into a function: its call is recorded, and made at run time",))


def outside_set(value: Any) -> bool:
    """Whether a value is a set from outside: what is done with it is done with the real one."""
    return isinstance(value, Frozen) and value.kind is set


def run_time(value: Any, depth: int = 6) -> bool:
    """Whether a value depends on the model or a host call, looking into plain containers."""
    if isinstance(value, Sym):
        return value.recipe is None
    if isinstance(value, Seq):
        return value.whole is None or value.whole.recipe is None
    if isinstance(value, Frozen):
        return any(run_time(v, depth - 1) for v in value.elements) if depth else True
    if type(value) in (list, tuple, set, frozenset):
        return any(run_time(v, depth - 1) for v in value) if depth else True
    if type(value) is dict:
        return any(run_time(v, depth - 1) for p in value.items() for v in p) if depth else True
    return False


def _holds_traced(value: Any) -> bool:
    items = value.values() if type(value) is dict else value
    return any(traced(v) or isinstance(v, Expr) for v in items)


def _holds_functions(value: Any) -> bool:
    """Whether a dict holds what the tracer must see to go on: functions, states."""
    if isinstance(value, Frozen):
        return value.names is not None and any(map(callable, value.elements))
    return type(value) is dict and (_holds_traced(value) or any(map(callable, value.values())))


def in_container(item: Any, container: Any) -> bool:
    return item in container


def kind_of(value: Any) -> str:
    """What a value is, in the words of messages."""
    if isinstance(value, Frozen):
        return value.what
    if isinstance(value, Sym):
        return "a value that only the run knows"
    return f"a {type(value).__name__}"
