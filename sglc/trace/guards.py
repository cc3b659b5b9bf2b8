"""Facts that a trace took from outside, and how to check them again.

A recipe says how to compute a value from a call's arguments alone; a guard is a recipe with the
outcome the trace relied on.  A compiled variant is used only where all its guards hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sglc.ir import compute

# A recipe: ("arg", name) | ("lit", value) | ("item", recipe, key) | ("fn", name, *recipes)
#         | ("format", parts, *recipes)
Recipe = tuple

MISSING = object()


def evaluate(recipe: Recipe, values: Mapping[str, Any]) -> Any:
    """The value of a recipe for given arguments; may raise what the Python operation raises."""
    kind = recipe[0]
    if kind == "arg":
        return values[recipe[1]]
    if kind == "lit":
        return recipe[1]
    if kind == "item":
        return evaluate(recipe[1], values)[recipe[2]]
    if kind == "format":
        return compute.run_format(recipe[1], [evaluate(r, values) for r in recipe[2:]])
    return compute.function(recipe[1])(*[evaluate(r, values) for r in recipe[2:]])


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """`evaluate(recipe) == expected` (with the same type), or merely that it does not raise.

    Guards are equal if they are written alike: `n * 1` is not `n * 1.0`.
    """

    recipe: Recipe
    expected: Any = MISSING

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guard) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def holds(self, values: Mapping[str, Any]) -> bool:
        try:
            value = evaluate(self.recipe, values)
        except Exception:
            return False
        return self.expected is MISSING or alike(value, self.expected)


@dataclass(frozen=True, slots=True)
class OutsideGuard:
    """A global, closure cell, default or attribute that the trace read: `read()` is as it was.

    Plain containers are compared by value, objects (in them, too) by identity.  was: the value
    then (a copy of plain containers).
    """

    name: str
    read: Callable[[], Any]
    expected: Any
    was: Any = None

    def holds(self) -> bool:
        try:
            value = self.read()
        except Exception:
            return False
        return bool(inventory(value) == self.expected)


def alike(value: Any, expected: Any) -> bool:
    """Whether values are equal, of the same types, and written alike (0.0 and -0.0 are not); nan
    is the same object, as `[x] == [y]` has it."""
    if type(value) is not type(expected):
        return False
    if type(value) is float and value != value:
        return value is expected
    if isinstance(value, (str, int)):
        return bool(value == expected)
    try:
        return bool(snapshot(value) == snapshot(expected))
    except TypeError:
        return bool(value == expected)


def shape(value: Any) -> Any:
    """The part of an argument that every variant is specialised on: types, lengths, keys."""
    kind = type(value)
    if kind in (str, int, float):
        return kind.__name__
    if value is None or kind is bool:
        return ("is", value)
    if kind in (list, tuple):
        return (kind.__name__, *map(shape, value))
    if kind is dict:
        return ("dict", *((_key(k), shape(v)) for k, v in value.items()))
    return ("object", kind)


def _key(key: Any) -> Any:
    """The key of a dict, as it is written: 1 is not True."""
    try:
        return snapshot(key)
    except TypeError:
        return type(key), key


def uniform(items: Sequence[Any]) -> bool:
    """Whether there are items, and all have the same shape but for the lengths of lists."""
    return bool(items) and len({loose_shape(v) for v in items}) == 1


def loose_shape(value: Any) -> Any:
    """The shape of an argument for variants of any length: see `shape`."""
    kind = type(value)
    if kind in (str, int, float):
        return kind.__name__
    if value is None or kind is bool:
        return ("is", value)
    if kind in (list, tuple):
        inner = tuple(map(loose_shape, value))
        if kind is list and inner and len(set(inner)) == 1:
            return ("list of", inner[0])
        return (kind.__name__, *inner)
    if kind is dict:
        return ("dict", *((_key(k), loose_shape(v)) for k, v in value.items()))
    return ("object", kind)


@dataclass(frozen=True, slots=True, eq=False)
class Itself:
    """An object in a snapshot, by identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def inventory(value: Any) -> Any:
    """A snapshot of plain containers, with objects in them by identity."""
    return snapshot(value, Itself)


def snapshot(value: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """A deep immutable copy of plain data (type names included).  Anything else is what `other`
    makes of it, or a TypeError.

    Floats are as they are written: 0.0 and -0.0 differ, and nan is nan; with `other` it is an
    object, as `x in [x]` has it.  Sets are in their order: a loop over two that are equal may
    differ.
    """
    kind = type(value)
    if kind is float and (value == value or other is None):
        return ("float", repr(value))
    if value is None or kind in (str, int, bool, bytes):
        return (kind.__name__, value)
    if kind in (list, tuple, set, frozenset):
        return (kind.__name__, *(snapshot(v, other) for v in value))
    if kind is dict:
        return ("dict", *((snapshot(k, other), snapshot(v, other)) for k, v in value.items()))
    if other is not None:
        return other(value)
    raise TypeError(f"{kind.__name__} is not plain data")
