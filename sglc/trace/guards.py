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


@dataclass(frozen=True, slots=True)
class Guard:
    """`evaluate(recipe) == expected` (with the same type), or merely that it does not raise."""

    recipe: Recipe
    expected: Any = MISSING

    def holds(self, values: Mapping[str, Any]) -> bool:
        try:
            value = evaluate(self.recipe, values)
        except Exception:
            return False
        return self.expected is MISSING or alike(value, self.expected)


@dataclass(frozen=True, slots=True)
class OutsideGuard:
    """A global, closure cell, default or attribute that the trace read: `read()` is as it was.

    Plain data is compared by value with a deep snapshot; anything else by identity.  was: the
    value then (a copy of plain data).
    """

    name: str
    read: Callable[[], Any]
    expected: Any
    by_value: bool
    was: Any = None

    def holds(self) -> bool:
        try:
            value = self.read()
        except Exception:
            return False
        if not self.by_value:
            return value is self.expected
        return snapshot(value) == self.expected


def alike(value: Any, expected: Any) -> bool:
    """Whether values are equal, of the same types, and written alike (0.0 and -0.0 are not)."""
    if type(value) is not type(expected):
        return False
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
        return ("dict", *((type(k).__name__, k, shape(v)) for k, v in value.items()))
    return ("object", kind)


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
        return ("dict", *((type(k).__name__, k, loose_shape(v)) for k, v in value.items()))
    return ("object", kind)


def snapshot(value: Any) -> Any:
    """A deep immutable copy of plain data (type names included); TypeError for anything else.

    Floats are as they are written: 0.0 and -0.0 differ, and nan is nan.  Sets are in their order:
    a loop over two that are equal may differ.
    """
    kind = type(value)
    if kind is float:
        return ("float", repr(value))
    if value is None or kind in (str, int, bool, bytes):
        return (kind.__name__, value)
    if kind in (list, tuple, set, frozenset):
        return (kind.__name__, *map(snapshot, value))
    if kind is dict:
        return ("dict", *((snapshot(k), snapshot(v)) for k, v in value.items()))
    raise TypeError(f"{kind.__name__} is not plain data")
