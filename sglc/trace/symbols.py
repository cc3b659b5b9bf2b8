"""Symbolic values: what stands for an argument or a generated text while a body is traced.

A symbol never lets Python see through it by accident: whatever needs its concrete value asks the
trace, which answers under a guard, explores both outcomes, or breaks the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglc.ir import compute, types
from sglc.ir.module import Operand, Value
from sglc.trace.guards import MISSING, Recipe
from sglc.trace.hosts import call, is_end, next_or_end

if TYPE_CHECKING:
    from sglc.trace.session import Session


class Sym:
    """A value known only at run time.

    operand: where it comes from in the IR.  recipe: how to compute it from the arguments alone,
    None if it depends on the model.  example: its value for the arguments being traced with,
    MISSING if unknown.
    """

    __slots__ = ("example", "operand", "recipe", "session", "type")
    __sglc_symbolic__ = True

    def __init__(self, session: Session, operand: Operand, type_: types.Type,
                 recipe: Recipe | None = None, example: Any = MISSING) -> None:
        self.session = session
        self.operand = operand
        self.type = type_
        self.recipe = recipe
        self.example = example

    @property
    def is_text(self) -> bool:
        return types.is_text(self.type)

    # -- operators: new symbols -------------------------------------------------------------
    def _compute(self, fn: str, *args: Any) -> Any:
        return self.session.compute(fn, *args)

    def __add__(self, other: Any) -> Any:
        if self.is_text or not isinstance(other, (int, float, Sym)):
            return self.session.add(self, other)
        return self._compute("add", self, other)

    def __radd__(self, other: Any) -> Any:
        if self.is_text or not isinstance(other, (int, float, Sym)):
            return self.session.add(other, self)
        return self._compute("add", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._compute("repeat" if self.is_text else "mul", self, other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        return self._compute("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._compute("sub", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self._compute("floordiv", self, other)

    def __truediv__(self, other: Any) -> Any:
        return self._compute("truediv", self, other)

    def __mod__(self, other: Any) -> Any:
        return self._compute("mod", self, other)

    def _other(self, name: str, left: Any, right: Any) -> Any:
        """An operator that is no IR operation: a host call, or on concrete arguments."""
        fn = getattr(operator, name)
        if all(not isinstance(v, Sym) or v.recipe is not None for v in (left, right)):
            return fn(self.session.concrete(left, "an operand"),
                      self.session.concrete(right, "an operand"))
        return self.session.host(name, fn, left, right)

    def __pow__(self, other: Any) -> Any:
        return self._compute("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._compute("pow", other, self)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._compute("floordiv", other, self)

    def __rtruediv__(self, other: Any) -> Any:
        return self._compute("truediv", other, self)

    def __rmod__(self, other: Any) -> Any:
        return self._compute("mod", other, self)

    def __and__(self, other: Any) -> Any:
        return self._other("and_", self, other)

    def __rand__(self, other: Any) -> Any:
        return self._other("and_", other, self)

    def __or__(self, other: Any) -> Any:
        return self._other("or_", self, other)

    def __ror__(self, other: Any) -> Any:
        return self._other("or_", other, self)

    def __xor__(self, other: Any) -> Any:
        return self._other("xor", self, other)

    def __rxor__(self, other: Any) -> Any:
        return self._other("xor", other, self)

    def __lshift__(self, other: Any) -> Any:
        return self._other("lshift", self, other)

    def __rlshift__(self, other: Any) -> Any:
        return self._other("lshift", other, self)

    def __rshift__(self, other: Any) -> Any:
        return self._other("rshift", self, other)

    def __rrshift__(self, other: Any) -> Any:
        return self._other("rshift", other, self)

    def __invert__(self) -> Any:
        return self.session.host("invert", operator.invert, self)

    def __pos__(self) -> Any:
        return self.session.host("pos", operator.pos, self)

    def __abs__(self) -> Any:
        return self._compute("abs", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.session.host("call", call, self, *args, **kwargs)

    def __next__(self) -> Any:
        item = self.session.host("next", next_or_end, self)
        if self.session.fact("whether there is another item", is_end, item):
            raise StopIteration
        return item

    def __neg__(self) -> Any:
        return self._compute("neg", self)

    def __eq__(self, other: Any) -> Any:  # type: ignore[override]
        return self._compute("eq", self, other)

    def __ne__(self, other: Any) -> Any:  # type: ignore[override]
        return self._compute("ne", self, other)

    def __lt__(self, other: Any) -> Any:
        return self._compute("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return self._compute("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._compute("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return self._compute("ge", self, other)

    def __getitem__(self, key: Any) -> Any:
        return self.session.item(self, key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.is_text and hasattr(str, name):
            return Method(self, name)
        return self.session.host("getattr", getattr, self, name)

    # -- where Python wants a concrete value ----------------------------------------------
    def __bool__(self) -> bool:
        return self.session.truth(self)

    def __len__(self) -> int:
        return self.session.concrete_int(self._compute("len", self), "its length")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.session.elements(self))

    def __contains__(self, other: Any) -> bool:
        return self.session.truth(self._compute("contains", self, other))

    def __index__(self) -> int:
        return self.session.concrete_int(self, "its value")

    def __int__(self) -> int:
        return self.session.concrete_int(self._compute("int", self), "its value")

    def __float__(self) -> float:
        return float(self.session.concrete(self, "its value"))

    def __hash__(self) -> int:
        return hash(self.session.concrete(self, "its value as a key"))

    def __str__(self) -> str:
        raise self.session.need(self, "its text, in Python code that is not traced")

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        raise self.session.need(self, "its text, in Python code that is not traced")


class Method:
    """A method of a symbolic text, to be called."""

    __slots__ = ("name", "receiver")
    __sglc_symbolic__ = True

    def __init__(self, receiver: Sym, name: str) -> None:
        self.receiver = receiver
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session = self.receiver.session
        if kwargs or not compute.text_method(self.name):
            return session.host(self.name, getattr(str, self.name), self.receiver, *args, **kwargs)
        return session.compute("text." + self.name, self.receiver, *args)


class Partial:
    """A variable that only one arm of an `if` has made: any use of it breaks the graph."""

    __slots__ = ("_session",)
    __sglc_symbolic__ = True

    def __init__(self, session: Session) -> None:
        self._session = session

    def refuse(self, *args: Any) -> Any:
        raise self._session.broken("SGLC111", "a variable is used that only one branch made",
                                   fixes=("give it a value before the if",))

    __bool__ = __len__ = __iter__ = __getitem__ = __call__ = __contains__ = refuse
    __add__ = __radd__ = __mul__ = __eq__ = __lt__ = __gt__ = refuse  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = __hash__ = __index__ = refuse  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.refuse()


@dataclass(frozen=True, slots=True)
class TypedGen:
    """The variable of a gen with a schema.  The body never sees it: a read is a host call on
    `operand`, the texts with their reader.  count: how many samples there are."""

    operand: Value
    type_name: str
    count: int


def is_symbolic(value: Any) -> bool:
    return getattr(type(value), "__sglc_symbolic__", False)


def contains_symbol(value: Any, depth: int = 6) -> bool:
    """Whether a value holds a symbol, looking into plain containers."""
    if is_symbolic(value):
        return True
    if depth == 0:
        return True  # too deep to tell
    if type(value) in (list, tuple, set, frozenset):
        return any(contains_symbol(v, depth - 1) for v in value)
    if type(value) is dict:
        return any(contains_symbol(v, depth - 1) for pair in value.items() for v in pair)
    return False
