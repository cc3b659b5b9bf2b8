"""Calls of the user's Python that a trace records instead of making.

A host call knows its function and how its arguments are put together from the values of the
operands: fresh containers each time, as the program's own displays would make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sglc.trace.guards import MISSING, Recipe, evaluate, snapshot
from sglc.trace.outline import Reads, check_bound


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an operand's value in a template."""

    index: int


@dataclass(frozen=True, slots=True)
class Made:
    """A container made anew for each call: list, tuple, set or dict (of pairs)."""

    kind: type
    items: tuple[Any, ...]


class Real:
    """The kind of a `Made` that is an object from outside: its one item reads it."""


@dataclass(frozen=True, slots=True, eq=False)
class FromOutside:
    """An argument that is read from outside when the call is made."""

    read: Callable[[], Any]


@dataclass(frozen=True, slots=True, eq=False)
class ReadState:
    """An argument that stands for a prompt state: variables of it, read before the call."""

    values: dict[Any, Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of the program, or a part of one, itself."""

    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Before:
    """What an argument, given by recipe, was when the run began (as a snapshot)."""

    recipe: Recipe


@dataclass(frozen=True, slots=True, eq=False)
class HostCall:
    """A call to be made at run time.

    expected: for checks, the snapshot of the value that the trace took for granted.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    expected: Any = MISSING

    def run(self, values: Sequence[Any], before: Mapping[str, Any],
            now: Mapping[str, Any]) -> Any:
        """Make the call; raises what the function raises.

        before: a copy of the arguments, made when the run began; now: the arguments themselves.
        """
        args = [snapshot(evaluate(a.recipe, before)) if isinstance(a, Before)
                else build(a, values, now) for a in self.args]
        return self.fn(*args, **{k: build(v, values, now) for k, v in self.kwargs})

    def matches(self, value: Any) -> bool:
        """Whether a check's value is the expected one."""
        try:
            return bool(snapshot(value) == self.expected)
        except TypeError:
            return False


def build(template: Any, values: Sequence[Any], now: Mapping[str, Any]) -> Any:
    """The value of a template."""
    if isinstance(template, Argument):
        return evaluate(template.recipe, now)
    if isinstance(template, Slot):
        return check_bound(values[template.index])
    if isinstance(template, Made):
        if template.kind is Real:
            return template.items[0]()
        if template.kind is Reads:
            return Reads(dict(build(i, values, now) for i in template.items))
        items = [build(i, values, now) for i in template.items]
        if template.kind is dict:
            return dict(items)
        return template.kind(items)
    return template


def describe_iterable(value: Any) -> tuple[str, int]:
    """How a value can be gone through: ("seq", length), or ("lazy", 0) for an iterator."""
    kinds = (list, tuple, str, dict, set, frozenset, range, bytes, type({}.keys()),
             type({}.values()), type({}.items()))
    if isinstance(value, kinds):
        return "seq", len(value)
    iter(value)  # the error that Python would raise
    return "lazy", 0


END = object()


def next_or_end(iterator: Any) -> Any:
    return next(iterator, END)


def is_end(value: Any) -> bool:
    return value is END


def call(fn: Any, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)
