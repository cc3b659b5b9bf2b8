"""What a body reads from outside: arguments, globals, closure cells, attributes.

Values that the trace relies on are guarded; after a host call, what may have changed is checked
at run time, or read there.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from sglc.ir import types
from sglc.ir.module import Lit, Operand, Value
from sglc.runtime.copies import plain_copy
from sglc.trace.bound_methods import owner_of
from sglc.trace.frozen import Frozen
from sglc.trace.guards import MISSING, OutsideGuard, Recipe, inventory, uniform
from sglc.trace.hosts import Before
from sglc.trace.primitives import is_program, may_call_programs
from sglc.trace.recording import Recording
from sglc.trace.symbols import Sym, is_symbolic

_STAY = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, CodeType)


class OutsideReads(Recording, ABC):
    """The part of a session that looks at things the body did not make."""

    @abstractmethod
    def list_given(self, operand: Operand, recipe: Recipe, example: list[Any], what: str) -> Any:
        """What the body sees of a list argument whose length is not fixed."""

    def argument(self, name: str, operand: Value, example: Any) -> Any:
        """What the body sees of an argument."""
        return self._outside_value(operand, ("arg", name), example, f"the argument {name!r}")

    def _outside_value(self, operand: Operand, recipe: Recipe, example: Any, what: str) -> Any:
        kind = type(example)
        if example is None or kind is bool:
            return example  # part of the variant's shape
        if kind in (str, int, float) or example is MISSING:
            type_ = types.ANY if example is MISSING else types.of_literal(example)
            return Sym(self, operand, type_, recipe, example)
        if kind is list and self.dynamic and uniform(example):
            return self.list_given(operand, recipe, example, what)
        if kind in (list, tuple, dict):
            keys = list(example) if kind is dict else list(range(len(example)))
            items = []
            for key in keys:
                op = self.emit("prompt.compute", (operand, Lit(key)), {"fn": "getitem"},
                               (type_of(example[key]),))
                items.append(self._outside_value(op.results[0], ("item", recipe, key),
                                                 example[key], f"{what}[{key!r}]"))
            return Frozen(self, kind, items, keys if kind is dict else None, what,
                          operand=operand if isinstance(operand, Value) else None,
                          argument=recipe)
        if may_call_programs(example):
            raise self.broken("SGLC112", f"{what} is a program, or a function that builds prompts",
                              fixes=("choose it in the body, by its name",))
        return Sym(self, operand, types.ANY)  # an object: whatever is done with it is a host op

    def read_outside(self, name: str, read: Callable[[], Any]) -> Any:
        """A global, closure cell or attribute: guarded, and checked again after host calls."""
        value = read()
        if is_symbolic(value) or getattr(type(value), "__sglc_traced__", False):
            return value
        whole = is_plain(value)
        if self.hosts == 0 or not whole:
            guard = self.known.get(name)
            if guard is None:
                guard = OutsideGuard(name, read, inventory(value), plain_copy(value))
            self.outside.setdefault(name, guard)
            value = guard.was
            if self.hosts and may_be_another(value) and not self.fact(
                    f"whether {name.rpartition(':')[2]} is the same object",
                    lambda: read() is value, guess=True, ends=True):
                return self.host(name.rpartition(":")[2], read)
        else:
            value = self.fact(f"the value of {name.rpartition(':')[2]}",
                              lambda: plain_copy(read()), guess=plain_copy(value))
        return self._frozen(value, name, read)

    def _frozen(self, value: Any, what: str, read: Callable[[], Any]) -> Any:
        """What the body sees of plain data from outside; `read` gives the real object."""
        if owner_of(value) is not None:  # a method of a container, or a view: it is not the body's
            return self.host(what.rpartition(":")[2], read)
        if type(value) not in (list, tuple, dict, set):
            return value
        if type(value) is tuple and not any(
                type(v) in (list, dict, tuple, set) or owner_of(v) is not None for v in value):
            return value
        if type(value) is set:
            return Frozen(self, set, list(value), None, what, read=read)
        keys = list(value)
        if type(value) is not dict:
            keys = list(range(len(value)))
        elements = [self._frozen(value[k], what, lambda k=k: read()[k])  # type: ignore[misc]
                    for k in keys]
        return Frozen(self, type(value), elements, keys if type(value) is dict else None, what,
                      read=read)

    def fresh(self, value: Frozen) -> None:
        """Make sure that a container from outside still is what the trace saw."""
        if value.seen == self.hosts or value.kind is tuple:
            return
        value.seen = self.hosts
        if value.argument is not None:
            if value.operand is None:
                return
            if not value.live:
                value.live = not self.fact(f"whether {value.what} is unchanged", unchanged, value,
                                           Before(value.argument), guess=True)
            if value.live:  # from here on it is read at run time
                if value.names is not None:
                    value.names = self.fact(f"the keys of {value.what}", list, value)
                    keys: Any = value.names
                else:
                    keys = range(self.fact(f"the length of {value.what}", len, value))
                value.elements = [self.host("getitem", operator.getitem, value, k) for k in keys]
                value.seen = self.hosts
        elif value.read is not None:
            read = value.read
            guess = MISSING if value.live else plain_copy(read())
            now = self.fact(f"the contents of {value.what}", lambda: plain_copy(read()),
                            guess=guess)
            value.live = False
            again = self._frozen(now, value.what, read)
            if isinstance(again, Frozen) and again.kind is value.kind:
                value.elements, value.names = again.elements, again.names
            else:
                raise self.broken("SGLC113", f"{value.what} becomes something else")


def unchanged(value: Any, before: Any) -> bool:
    """Whether an argument is what it was when the run began."""
    try:
        return bool(inventory(value) == before)
    except TypeError:
        return True


def is_plain(value: Any) -> bool:
    """Whether a value from outside is data: text, a number, a container."""
    return value is None or type(value) in (str, int, float, bool, bytes, list, tuple, dict, set,
                                            frozenset)


def may_be_another(value: Any) -> bool:
    """Whether a host call may put another object in the place of one: functions, classes and
    modules are taken to stay."""
    return not (is_plain(value) or isinstance(value, _STAY) or is_program(value)
                or owner_of(value) is not None or type(value).__module__.startswith("sglc."))


def type_of(value: Any) -> types.Type:
    return types.JSON if isinstance(value, (list, tuple, dict)) else types.of_literal(value)
