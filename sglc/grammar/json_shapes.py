"""Conjunctions of JSON schemas as data: what they say of each type of value.

Knows no schema's syntax (see `json_reader.py`) and no automata.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sglc.grammar.json_numbers import Range

TYPES = ("null", "boolean", "integer", "real", "string", "array", "object")
ALL = frozenset(TYPES)


class Unsupported(Exception):
    """The schema has something that is not enforced here; the text names the keyword."""


@dataclass(frozen=True, slots=True)
class Part:
    """A schema where it stands: `within` are the references that led to it."""

    schema: Any
    within: tuple[str, ...] = ()


_UNBOUNDED = Range()
Goal = tuple[Part, ...]
"""The values that fit all parts; no parts: any value."""


@dataclass(frozen=True, slots=True)
class Members:
    """What one schema says of objects; `rest`: of members that `named` lacks (None: nothing)."""

    named: dict[str, Goal]
    required: tuple[str, ...] = ()
    rest: Goal | None = None
    names: Goal | None = None
    least: int = 0
    most: int | None = None
    listed: bool = False  # `properties` is there, so the others were left out on purpose


@dataclass(frozen=True, slots=True)
class Items:
    """What one schema says of arrays; `rest`: of items after the `first` (None: nothing)."""

    first: tuple[Goal, ...] = ()
    rest: Goal | None = None
    least: int = 0
    most: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """Values of `types` that meet all that is said of their type.

    `typed`: the types were given; `about`: the types that keywords speak of.  `values`: the only
    ones (None: any).  `without`: strings that are excluded.
    """

    types: frozenset[str] = ALL
    typed: bool = False
    about: frozenset[str] = frozenset()
    values: tuple[Any, ...] | None = None
    range: Range = _UNBOUNDED
    multiple: int | None = None
    least: int = 0
    most: int | None = None
    patterns: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    arrays: tuple[Items, ...] = ()
    objects: tuple[Members, ...] = ()

    def both(self, other: Shape) -> Shape:
        multiple = self.multiple or other.multiple
        if self.multiple and other.multiple:
            multiple = math.lcm(self.multiple, other.multiple)
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            wanted = {identity(v) for v in other.values}
            values = tuple(v for v in self.values if identity(v) in wanted)
        return Shape(
            self.types & other.types, self.typed or other.typed, self.about | other.about, values,
            self.range.both(other.range), multiple, max(self.least, other.least),
            smaller(self.most, other.most),
            tuple(dict.fromkeys(self.patterns + other.patterns)),
            tuple(dict.fromkeys(self.formats + other.formats)), self.without + other.without,
            self.arrays + other.arrays, self.objects + other.objects)


def smaller(one: int | None, two: int | None) -> int | None:
    return one if two is None else two if one is None else min(one, two)


def identity(value: Any) -> Any:
    """Equal exactly for values that JSON schema takes for equal (1 and 1.0, but not true)."""
    if isinstance(value, dict):
        return "object", frozenset((k, identity(v)) for k, v in value.items())
    if isinstance(value, list):
        return "array", tuple(identity(v) for v in value)
    return type_of(value) if type_of(value) in ("null", "boolean") else "", value


def type_of(value: Any) -> str:
    """Which of TYPES a JSON value is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "real"
    return {int: "integer", str: "string", list: "array"}.get(type(value), "object")


def member_goal(parts: Iterable[Members], name: str) -> Goal:
    """What objects of all `parts` must have as the member `name`."""
    return tuple(p for part in parts
                 for p in (part.named[name] if name in part.named else part.rest or ()))


def item_goal(parts: Iterable[Items], index: int) -> Goal:
    return tuple(p for part in parts
                 for p in (part.first[index] if index < len(part.first) else part.rest or ()))
