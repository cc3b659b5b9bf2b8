"""Calls of the user's Python that a trace records instead of making.

A host call knows its function and how its arguments are put together from the values of the
operands: fresh containers each time, as the program's own displays would make them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sglc.errors import Place, SglcError, users_place
from sglc.ir import compute
from sglc.trace.guards import MISSING, Recipe, evaluate, inventory
from sglc.trace.outline import Reads, check_bound, run_outlined

REFUSED: ContextVar[list[SglcError] | None] = ContextVar("sglc_refused", default=None)
"""While this thread makes a host call: what the user's Python did in it and must not, as the
compiler did not see it.  Errors that are raised there may be caught there."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is declared about a function, as its `__sglc_host__`.  latency: seconds a call."""

    pure: bool = False
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an operand's value in a template."""

    index: int


@dataclass(frozen=True, slots=True)
class Made:
    """A container made anew for each call: list, tuple, set or dict (of pairs), or what another
    function makes of a list."""

    kind: Callable[[list[Any]], Any]
    items: tuple[Any, ...]


class Real:
    """The kind of a `Made` that is an object from outside: its one item reads it."""


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """An argument that `make` gives from the values of `parts` when the call is made."""

    make: Callable[[list[Any]], Any]
    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """An argument that is an argument of the program, or a part of one, itself."""

    recipe: Recipe


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

    expected: for checks, the snapshot of the value that the trace took for granted.  place: where
    the program makes the call.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    expected: Any = MISSING
    place: Place | None = None

    def run(self, values: Sequence[Any], before: Mapping[str, Any],
            now: Mapping[str, Any]) -> Any:
        """Make the call; raises what the function raises.

        before: a copy of the arguments, made when the run began; now: the arguments themselves.
        """
        args = [inventory(evaluate(a.recipe, before)) if isinstance(a, Before)
                else values[a.index] if isinstance(a, Slot) and self.fn is run_outlined
                else build(a, values, now) for a in self.args]
        refused: list[SglcError] = []
        token = REFUSED.set(refused)
        try:
            value = self.fn(*args, **{k: build(v, values, now) for k, v in self.kwargs})
        except SglcError as e:
            e.locate(users_place(e.__traceback__) or self.place)
            raise
        finally:
            REFUSED.reset(token)
            if refused:
                refused[0].locate(self.place)
                raise refused[0]
        return value

    @property
    def repeatable(self) -> bool:
        """Whether nobody can tell that the call is made again."""
        facts = getattr(self.fn, "__sglc_host__", None)
        return self.fn in HARMLESS or (isinstance(facts, HostFacts) and facts.pure)

    def matches(self, value: Any) -> bool:
        """Whether a check's value is the expected one."""
        try:
            return bool(inventory(value) == self.expected)
        except TypeError:
            return False


def itself(value: Any) -> Any:
    """The value, as one of the run."""
    return value


HARMLESS = (operator.getitem, operator.add, len, list, itself)


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
    """How a value can be gone through: ("seq", length), ("list", length) or ("sized", length) for
    what the loop may change, as a list or not at all, or ("lazy", 0) for an iterator."""
    if getattr(type(value), "__iter__", None) not in _COUNTED:
        if not (hasattr(type(value), "__iter__") or hasattr(type(value), "__getitem__")):
            iter(value)  # the error that Python would raise
        return "lazy", 0
    if type(value) is list:
        return "list", len(value)
    if isinstance(value, (dict, set, type({}.keys()), type({}.values()), type({}.items()))):
        return "sized", len(value)
    return "seq", len(value)


_COUNTED = tuple(kind.__iter__ for kind in (
    list, tuple, str, frozenset, range, bytes, dict, set, type({}.keys()), type({}.values()),
    type({}.items())))


def changed_size(value: Any) -> None:
    """Python's error for a loop over what was changed in it."""
    kind = "Set" if isinstance(value, set) else "dictionary"
    raise RuntimeError(f"{kind} changed size during iteration")


END = object()


def next_or_end(iterator: Any) -> Any:
    return next(iterator, END)


def is_end(value: Any) -> bool:
    return value is END


def call(fn: Any, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


def dict_of(*pairs: Any) -> dict[Any, Any]:
    """A dict display; a pair of one is a mapping."""
    out: dict[Any, Any] = {}
    for pair in pairs:
        if len(pair) == 1:
            out.update({**pair[0]})
        else:
            out[pair[0]] = pair[1]
    return out


def set_of(*items: Any) -> set[Any]:
    """A set display."""
    return set(items)


def sequence_of(kind: str, starred: Sequence[bool], *values: Any) -> Any:
    """A list or tuple display."""
    out: list[Any] = []
    for value, star in zip(values, starred, strict=True):
        if star:
            out.extend(value)
        else:
            out.append(value)
    return out if kind == "list" else tuple(out)


def unpacked(value: Any, before: int, after: int | None) -> list[Any]:
    """What the targets of `a, b = value` get, or those of `a, *b, c = value`."""
    if after is None:
        items = []
        for item in value:
            items.append(item)
            if len(items) > before:
                raise ValueError(f"too many values to unpack (expected {before})")
        if len(items) < before:
            raise ValueError(
                f"not enough values to unpack (expected {before}, got {len(items)})")
        return items
    items = list(value)
    if len(items) < before + after:
        raise ValueError(f"not enough values to unpack (expected at least {before + after}, got "
                         f"{len(items)})")
    end = len(items) - after
    return [*items[:before], items[before:end], *items[end:]]


def formatted(value: Any, conversion: str, spec: str) -> str:
    """One field of an f-string."""
    return compute.run_format(((0, conversion, spec),), [value])
