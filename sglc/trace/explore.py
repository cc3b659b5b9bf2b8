"""Path exploration: one body, run once per combination of outcomes, merged into one graph.

Each run replays the operations recorded so far and then records new ones.  Where the body asks
for the truth of a run-time value, the recording splits into two segments; runs go on until every
segment is complete.  (Replaying from the start: Koppel et al., thermometer continuations, 2018.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sglc.errors import Place
from sglc.ir import types
from sglc.ir.builder import Builder
from sglc.ir.module import Attr, Lit, Op, Operand, Value
from sglc.trace.breaks import GraphBreak

MAX_PATHS = 64
MAX_LOOP = 16  # explored outcomes at one place of the source on one path
# A trace that comes to these ends within seconds; what needs more is run as it is written.
MAX_REQUESTS = 150_000  # operations on all runs of the body, repeated ones included
MAX_WORK = 40_000  # operations other than appends, which merge
MAX_STEPS = 200_000  # tests and rounds of loops, on all runs


@dataclass(eq=False, slots=True)
class Segment:
    """Operations between two decisions.  `log` has one entry for each request to emit."""

    builder: Builder
    log: list[Op] = field(default_factory=list)
    condition: Operand | None = None
    place: Place | None = None
    arms: tuple[Segment, Segment] | None = None  # (true, false)
    event: int = 0
    results: tuple[Operand, ...] | None = None  # of a path that ended here

    @property
    def complete(self) -> bool:
        if self.arms is not None:
            return self.arms[0].complete and self.arms[1].complete
        return self.results is not None


class Recorder:
    """The recording of one program over all its runs.

    An *event* is a decision, or a fact that the trace took from a run-time value; a path numbers
    its events in Python's order.  given: the outcomes of the first events, where they are known
    already (the rest of a program that was traced up to a break): nothing branches there.
    told: how many events the run will tell of, or has told.  explores: whether the path has taken
    a way that a run may not take.
    """

    def __init__(self, builder: Builder, given: Sequence[Any] = ()) -> None:
        self.root = Segment(builder)
        self.given = tuple(given)
        self.paths = 0
        self.leaves = 1  # paths that are known to come
        self.requests = 0
        self.work = 0
        self.steps = 0
        self.merges: dict[Op, Any] = {}  # what recorded `if`s with merged arms left
        self.unmergeable: set[tuple[int, int]] = set()  # where arms turned out not to merge
        self.restart()

    def restart(self) -> None:
        """Begin a run at the top."""
        self.segment = self.root
        self.cursor = 0
        self.events = self.told = 0
        self.explores = False
        self.places: dict[Place | None, int] = {}

    def next_event(self) -> int:
        self.events += 1
        return self.events - 1

    def tell(self) -> None:
        """The run knows how the last event came out."""
        self.told = self.events

    @property
    def replayed(self) -> Op | None:
        """The recorded op that the next request to emit must repeat, if any."""
        log = self.segment.log
        return log[self.cursor] if self.cursor < len(log) else None

    @property
    def complete(self) -> bool:
        return self.root.complete

    def emit(self, name: str, operands: Sequence[Operand], attrs: dict[str, Attr],
             result_types: Sequence[types.Type], names: Sequence[str], place: Place | None) -> Op:
        """A new operation, or the recorded one when replaying."""
        self.requests += 1
        if self.requests > MAX_REQUESTS:
            raise endless("operations", place)
        segment = self.segment
        if self.cursor < len(segment.log):
            op = segment.log[self.cursor]
            if (op.name != name or op.operands != tuple(operands) or op.attrs != attrs):
                raise GraphBreak("SGLC111", "the program does not do the same when run again",
                                 place=place, why="it depends on something that changes")
            self.cursor += 1
            return op
        if segment.arms is not None or segment.results is not None:
            raise GraphBreak("SGLC111", "the program does more when run again", place=place)
        if name != "prompt.append":
            self.work += 1
            if self.work > MAX_WORK:
                raise endless("operations", place)
        op = segment.builder.op(name, operands, attrs, result_types, place, names)
        segment.log.append(op)
        self.cursor += 1
        return op

    def must_break(self, place: Place | None) -> bool:
        """Whether a decision here is better left to run time: the budget of a trace that goes on
        after a break is spent, and its program can no longer run as it is written."""
        if self.events < len(self.given) or not self.given or self.segment.arms is not None:
            return False
        return self.places.get(place, 0) >= MAX_LOOP or self.leaves >= MAX_PATHS

    def decide(self, condition: Operand, place: Place | None) -> bool:
        """The outcome of a run-time condition on this run; the other one is taken by another."""
        event = self.next_event()
        if event < len(self.given):
            self.tell()
            return bool(self.given[event])
        count = self.places[place] = self.places.get(place, 0) + 1
        if count > MAX_LOOP:
            raise GraphBreak("SGLC120", f"a loop goes on past {MAX_LOOP} undecided rounds",
                             place=place, fixes=("bound the loop: for _ in range(n)",))
        segment = self.segment
        if self.cursor < len(segment.log):
            raise GraphBreak("SGLC111", "the program does not do the same when run again",
                             place=place)
        assert segment.results is None
        if segment.arms is None:
            self.leaves += 1
            segment.condition, segment.place, segment.event = condition, place, event
            segment.arms = (Segment(segment.builder.region()), Segment(segment.builder.region()))
        elif segment.condition != condition:
            raise GraphBreak("SGLC111", "the program does not do the same when run again",
                             place=place)
        self.tell()
        self.explores = True
        outcome = not segment.arms[0].complete
        self.segment = segment.arms[0 if outcome else 1]
        self.cursor = 0
        return outcome

    def finish(self, results: tuple[Operand, ...]) -> None:
        """End a run with the path's results."""
        self.paths += 1
        if self.paths > MAX_PATHS:
            raise GraphBreak("SGLC120", f"the program has more than {MAX_PATHS} paths",
                             fixes=("use select or choices with fewer outcomes",))
        self.segment.results = results

    def merge(self) -> None:
        """Turn the segments into `prompt.if` regions under one `prompt.return`."""
        has_value = any(r[1] != Lit(None) for r in self._leaves(self.root))
        self._close(self.root, "prompt.return", has_value)

    def _leaves(self, segment: Segment) -> list[tuple[Operand, ...]]:
        if segment.arms is None:
            return [segment.results or ()]
        return self._leaves(segment.arms[0]) + self._leaves(segment.arms[1])

    def _close(self, segment: Segment, end: str, has_value: bool) -> None:
        builder = segment.builder
        if segment.arms is None:
            assert segment.results is not None
            builder.op(end, segment.results[: 1 + has_value])
            return
        for arm in segment.arms:
            self._close(arm, "prompt.yield", has_value)
        assert segment.condition is not None
        results = (types.PROMPT, types.ANY)[: 1 + has_value]
        op = builder.op("prompt.if", (segment.condition,), {"event": segment.event}, results,
                        segment.place, (),
                        [arm.builder.block for arm in segment.arms])
        values: tuple[Value, ...] = op.results
        builder.op(end, values)


def endless(what: str, place: Place | None) -> GraphBreak:
    """The break of a program that is too long to trace, or never ends."""
    return GraphBreak("SGLC120", f"the program takes more {what} than the tracer follows",
                      place=place, why="a loop here goes on for very long, or for ever",
                      fixes=("bound the loop", "loop over the rows outside: run_batch(rows)"))
