"""Hooks for what expressions compute: f-strings, comparisons, truth, arithmetic, items.

Nothing here changes a value of the program (see `changes.py`), and nothing calls its functions
(see `hooks.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sglc.lang.expressions import Expr
from sglc.trace.bound_methods import VIEWS
from sglc.trace.containers import OWN
from sglc.trace.frozen import Frozen
from sglc.trace.functions import Functions
from sglc.trace.groups import LoopGroup
from sglc.trace.hosts import formatted, itself
from sglc.trace.objects import EQUAL, ITEMS, ORDER, TEXT, TRUTH, acts, acts_inside, item_of
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Partial, Sym, contains_symbol, is_symbolic
from sglc.trace.values import outside_set, run_time, run_time_symbol, traced

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le,
    "Gt": operator.gt, "GtE": operator.ge, "Is": operator.is_, "IsNot": operator.is_not,
    "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b,
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


class Operators(Functions):
    """The hooks that stand for Python's operators."""

    # -- texts ----------------------------------------------------------------------------
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

    # -- comparisons ----------------------------------------------------------------------
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

    # -- truth ----------------------------------------------------------------------------
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

    # -- arithmetic -----------------------------------------------------------------------
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

    # -- items ----------------------------------------------------------------------------
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

    # -- values ---------------------------------------------------------------------------
    def opaque(self, value: Any, *names: str) -> Any:
        """The value, as one of the run if such a special method of it is not for the trace to
        call."""
        return self.session.host("object", itself, value) if acts(value, *names) else value

    def _concrete(self, value: Any, what: str) -> Any:
        """A value without symbols; what: what it is needed for, for the error if there is none."""
        session = self.session
        if isinstance(value, Sym):
            return session.concrete(value, f"the value, for {what},")
        if isinstance(value, Frozen):
            items = [self._concrete(v, what) for v in value._values()]
            return value.kind(items) if value.names is None else dict(
                zip(value.names, items, strict=True))
        if type(value) in (list, tuple):
            return type(value)(self._concrete(v, what) for v in value)
        if type(value) is dict:
            return {k: self._concrete(v, what) for k, v in value.items()}
        if is_symbolic(value) or traced(value):
            raise session.need(value, f"the value, for {what},")
        return value


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
