"""The traced forms of one program, and which of them stands for a call.

Each shape of arguments has its own, lengths included.  A program that is called with more than a
few lengths is traced once more for any length; where that cannot be, each length keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sglc.collector import collection_paused
from sglc.errors import Diagnostic
from sglc.ir.signatures import LOOPS
from sglc.lang.calling import place_of
from sglc.trace.breaks import GraphBreak
from sglc.trace.guards import loose_shape, shape
from sglc.trace.tracer import Trace, Tracer

MAX_VARIANTS = 64  # of one shape of arguments; more run in the eager interpreter
MAX_LENGTHS = 8  # variants of one shape but for lengths, before one is traced for any length
MAX_DYNAMIC = 4  # of those, as they have guards too
MAX_FAILED = 3  # traces for any length that came to nothing, after which there are no more


@dataclass(slots=True, eq=False)
class Variant:
    """One traced form of a program (or the reason there is none), and where it applies."""

    trace: Trace | None
    guards: tuple[Any, ...]
    outside: tuple[Any, ...]
    broken: Diagnostic | None = None
    raises: bool = False  # broken because the program itself raises an error there
    lowered: dict[Any, Any] = field(default_factory=dict)
    tails: dict[Any, list[Tail]] = field(default_factory=dict)  # by the events they go on after

    def holds(self, values: Mapping[str, Any]) -> bool:
        return all(g.holds(values) for g in self.guards)

    def current(self) -> bool:
        return all(g.holds() for g in self.outside)

    def add_tail(self, key: Any, variant: Variant) -> None:
        """Keep a variant that goes on after these events."""
        mine, names = set(self.guards), {g.name for g in self.outside}
        self.tails.setdefault(key, []).append(Tail(
            variant, tuple(g for g in variant.guards if g not in mine),
            tuple(g for g in variant.outside if g.name not in names)))


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """A variant that goes on after a break, with what it relies on beyond the one that broke."""

    variant: Variant
    guards: tuple[Any, ...]
    outside: tuple[Any, ...]

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether it stands for a run with these arguments, as things are now."""
        return all(g.holds(values) for g in self.guards) and all(g.holds() for g in self.outside)


class Variants:
    """The variants of one program."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self._exact: dict[Any, list[Variant]] = {}  # by shape
        self._lengths: dict[Any, int] = {}  # how many there are of a loose shape
        self._dynamic: dict[Any, list[Variant]] = {}  # by loose shape
        self._fixed: dict[Any, int] = {}  # loose shapes: how often that could not be traced

    def find(self, values: Mapping[str, Any], checked: set[Variant]) -> Variant:
        """The variant for these arguments, traced now if there is none.

        checked: variants whose outside facts were checked in this batch already.
        """
        try:
            key = tuple(map(shape, values.values()))
        except RecursionError:
            return Variant(None, (), (), Diagnostic(
                "SGLC111", "an argument holds itself, or is nested very deeply",
                place_of(self.program.fn), effect="the program runs in the eager interpreter"))
        variants = self._exact.setdefault(key, [])
        found = self._holding(variants, values, checked)
        if found is not None:
            return found
        loose = tuple(map(loose_shape, values.values()))
        if self._lengths.get(loose, 0) >= MAX_LENGTHS and self._fixed.get(
                loose, 0) < MAX_FAILED:
            dynamic = self._dynamic.setdefault(loose, [])
            found = self._holding(dynamic, values, checked)
            if found is None and len(dynamic) < MAX_DYNAMIC:
                found = trace_any_length(self.program, values)
                if found is None:
                    self._fixed[loose] = self._fixed.get(loose, 0) + 1
                else:
                    dynamic.append(found)
                    checked.add(found)
            if found is not None:
                return found
        if len(variants) >= MAX_VARIANTS:
            return Variant(None, (), (), Diagnostic(
                "SGLC115", f"{self.program.name} has more than {MAX_VARIANTS} variants for "
                "one shape of arguments", place_of(self.program.fn),
                effect="further ones run in the eager interpreter"))
        variant = trace_variant(self.program, values)
        variants.append(variant)
        self._lengths[loose] = self._lengths.get(loose, 0) + 1
        checked.add(variant)
        return variant

    @staticmethod
    def _holding(variants: list[Variant], values: Mapping[str, Any],
                 checked: set[Variant]) -> Variant | None:
        for variant in list(variants):
            if variant not in checked:
                if not variant.current():
                    variants.remove(variant)
                    continue
                checked.add(variant)
            if variant.holds(values):
                return variant
        return None


@collection_paused()
def trace_variant(program: Any, values: Mapping[str, Any], events: Sequence[Any] = (),
                  known: Sequence[Any] = (),
                  lengths: Mapping[str, int] | None = None) -> Variant:
    """Trace the program for these arguments; giving up is a variant too.

    events: the outcomes of the first events of the path, to trace on after a break; known: the
    outside facts of the trace that broke.
    """
    tracer = Tracer(program.fn, values, events, known, lengths)
    try:
        trace = tracer.trace()
    except GraphBreak as e:
        session = getattr(tracer, "session", None)
        guards = tuple(session.guards) if session is not None else ()
        outside = tuple(session.outside.values()) if session is not None else ()
        broken = e.diagnostic
        if broken.place is None:  # outside the body: in its arguments, or in what it returned
            broken = replace(broken, place=place_of(program.fn))
        return Variant(None, guards, outside, broken, e.raises)
    return Variant(trace, trace.guards, trace.outside)


@collection_paused()
def trace_any_length(program: Any, values: Mapping[str, Any]) -> Variant | None:
    """The program traced with loops of run-time length; None where it does more in them than a
    loop can hold, or has none."""
    try:
        trace = Tracer(program.fn, values, dynamic=True).trace()
    except GraphBreak:
        return None
    if trace.breaks or not any(op.name in LOOPS for op in trace.module.walk()):
        return None
    return Variant(trace, trace.guards, trace.outside)
