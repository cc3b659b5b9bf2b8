"""Loops over lists of any length: one round is traced, into a `prompt.for` or `prompt.map`.

A program that was compiled for many lengths is traced once more this way.  A round may do what an
arm of an `if` may (see `regions.py`): append, generate, assign.  What one round changes and the
next one sees is carried; what each round leaves (a variable, the end of a fork's child, an item of
a list that the body builds) is collected.  Where a body does more, there is no such trace, and
each length keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sglc.ir import types
from sglc.ir.module import Op, Value
from sglc.trace.breaks import NotMergeable
from sglc.trace.explore import Segment
from sglc.trace.groups import LoopGroup
from sglc.trace.lists import Lists
from sglc.trace.loop_ops import leave, loop_op
from sglc.trace.regions import UNBOUND
from sglc.trace.rounds import (
    Frame,
    Get,
    Growing,
    Key,
    Loop,
    Put,
    Round,
    carried_type,
    shared_lists,
    turns_between,
)
from sglc.trace.sequences import Seq
from sglc.trace.state import TraceState
from sglc.trace.symbols import Partial, Sym

MAX_TRIES = 8  # rounds traced until all that changes is known


class Loops(Lists):
    """The part of a session that traces loops of run-time length."""

    def each(self, group: LoopGroup, part: Any) -> None:
        """`group += part`."""
        def body(pair: Any) -> None:
            state = pair[1]
            state += part(pair[0]) if callable(part) else part

        if isinstance(part, str):
            raise self.broken("SGLC111", "a plain string is added to a group of forks",
                              raises=True)
        self.run_loop(self.builtin(enumerate, (group,), {}), body)

    def concatenate(self, group: LoopGroup) -> None:
        """Add what each state added to the parent, in order."""
        parent = group.parent

        def body(child: TraceState) -> None:
            parent._prompt = self.emit("prompt.concat", (parent._prompt, child._prompt, group.base),
                                       {}, (types.PROMPT,)).results[0]

        self.run_loop(self.sequence(group), body)  # type: ignore[arg-type]

    def collect(self, seq: Seq, fn: Callable[[Any], Any]) -> Seq:
        """`[fn(item) for item in seq]`."""
        out: list[Any] = []
        built = self.run_loop(seq, lambda item: self.append(out, fn(item)), lambda: (out,),
                              hidden=True)
        return built[0]

    def append(self, target: list[Any], value: Any) -> bool:
        """`target.append(value)` of a list of the body's in a round; False outside loops."""
        if not self.frames:
            return False
        frame = self.frames[-1]
        if self.depth != frame.depth or target or id(target) in frame.shared:
            raise NotMergeable
        frame.built.setdefault(id(target), (target, []))[1].append(value)
        return True

    def run_loop(self, seq: Seq, body: Callable[[Any], Any], get: Get = lambda: (),
             put: Put = lambda values: None, own: tuple[int, ...] = (),
             hidden: bool = False) -> list[Seq]:
        """Go through a sequence: trace a round, or take the recorded loop.  Returns the lists
        that the body builds.

        own: the locals that each round begins by assigning.  hidden: the body cannot read the
        list that it builds.
        """
        recorder = self.recorder
        self.check_alone()
        self.still_as_given(seq)
        for state in self.states:
            state.count_calls()
        if own:
            put(tuple(UNBOUND if k in own else v for k, v in enumerate(get())))
        recorded = recorder.replayed
        if recorded is not None and recorded in recorder.merges:
            loop: Loop = recorder.merges[recorded]
            recorder.cursor += 1
        else:
            try:
                op, loop = self._trace_loop(seq, body, get, put, hidden)
            except NotMergeable:
                raise self.broken("SGLC110", "a loop of run-time length does more than append, "
                                  "generate and assign") from None
            recorder.merges[op] = loop
        return leave(self, loop, seq, get, put)

    def _trace_loop(self, seq: Seq, body: Callable[[Any], Any], get: Get, put: Put,
                    hidden: bool) -> tuple[Op, Loop]:
        recorder = self.recorder
        home, cursor, events = recorder.segment, recorder.cursor, recorder.events
        states, groups = [s.fields() for s in self.states], [g.fields() for g in self.groups]
        shared = shared_lists(get)
        values, reads, calls = get(), dict(self.reads), len(self.calls)
        excluded, unchecked, sound = dict(self.excluded), dict(self.unchecked), self.sound.mark()
        carried: dict[Key, types.Type] = {}
        lost: set[Key] = set()
        turns: dict[int, tuple[str, ...]] = {}
        growing: set[int] = set()

        def back() -> None:
            for state in self.states[len(states):]:
                state.end()
            del self.states[len(states):], self.groups[len(groups):], self.calls[calls:]
            self._back(states, values, put)
            for group, fields in zip(self.groups, groups, strict=True):
                group.restore(fields)
            recorder.segment, recorder.cursor = home, cursor
            self.reads, self.excluded = dict(reads), dict(excluded)
            self.unchecked, self.alone = dict(unchecked), None
            self.sound.back(sound)

        for _ in range(MAX_TRIES):
            recorder.events = events
            self.depth += 1
            try:
                traced = self._round(seq, body, get, put, carried, lost, shared, turns, growing)
            finally:
                self.depth -= 1
                self.frames.pop()
                back()
            new = self._widen(traced, carried, lost, states, values) or traced.turns != turns
            turns = traced.turns
            appended = set() if hidden else {k for k, _ in traced.built}
            if not new and appended == growing:
                break
            growing = appended
            for op in reversed(list(traced.block.ops)):
                op.drop()
        else:
            raise NotMergeable
        return loop_op(self, seq, traced, carried, states, values)

    def _round(self, seq: Seq, body: Callable[[Any], Any], get: Get, put: Put,
               carried: dict[Key, types.Type], lost: set[Key], shared: set[int],
               repeated: dict[int, tuple[str, ...]], growing: set[int]) -> Round:
        recorder = self.recorder
        before = len(self.states)
        names = [("i", types.INT), *(
            (str(key[-1]) if key[0] == "variable" else "", t) for key, t in carried.items())]
        builder = recorder.segment.builder.region("", names)
        recorder.segment, recorder.cursor = Segment(builder), 0
        self.reads = {}
        number, *rest = builder.block.args
        frame = Frame(number, seq.size, self.depth, shared)
        self.frames.append(frame)
        args = dict(zip(carried, rest, strict=True))
        if growing:
            put(tuple(Growing(self, frame) if k in growing else v for k, v in enumerate(get())))
        start = self._start_round(args, lost, get, put)
        for i, roles in repeated.items():
            self.states[i].repeat(roles, number)
        fields = [s.fields() for s in self.states]
        body(seq.pick(Sym(self, number, types.INT)))
        self.check_alone()
        ends: dict[Key, Any] = {}
        turns: dict[int, tuple[str, ...]] = {}
        gone: set[Key] = set()
        for i, (state, first) in enumerate(zip(self.states[:before], fields, strict=True)):
            last = state.fields()
            for same in ("begin", "forks"):
                if last[same] != first[same]:
                    raise NotMergeable
            if last["roles"] != first["roles"]:
                turns[i] = turns_between(first["roles"], last["roles"])
            if last["prompt"] is not first["prompt"]:
                ends["prompt", i] = last["prompt"]
            if (last["calls"], last["offset"]) != (first["calls"], first["offset"]):
                ends["count", i] = self._count(last)
            for name, value in last["variables"].items():
                if value is not first["variables"].get(name, UNBOUND):
                    ends["variable", i, name] = value
            gone |= {("meta", i, name) for name, meta in last["metas"].items()
                     if meta is not first["metas"].get(name)}
        for k, (old, new) in enumerate(zip(start, get(), strict=True)):
            if old is not new and not (type(old) is type(new) and isinstance(
                    new, (str, int, float)) and old == new):
                ends["local", k] = new
        children = {}
        for group, state in frame.children.items():
            last = state.fields()
            if last["offset"] is not None or (last["roles"], last["closed"], last["begin"]) != (
                    (group.roles.closed, group.roles.open), tuple(group.closed), group.begin):
                raise NotMergeable
            children[group] = (group.fields(), last)
        waits = [self._plain(v) for v in self.reads if not self.sound.is_read(v)]
        built = []
        for target, items in frame.built.values():
            at = [k for k, v in enumerate(start) if v is target]
            if len(at) != 1 or len(items) != 1:
                raise NotMergeable
            built.append((at[0], self.operand(items[0])))
        return Round(builder.block, args, ends, gone, children, waits, built, turns)

    def _start_round(self, args: dict[Key, Value], lost: set[Key], get: Get,
                     put: Put) -> tuple[Any, ...]:
        """Make the states and locals those of any round; the locals."""
        values = list(get())
        for key in lost:
            if key[0] == "variable":
                self.states[key[1]]._variables[key[2]] = Partial(self)
            elif key[0] == "meta":
                self.states[key[1]]._metas[key[2]] = Partial(self)
            elif key[0] == "local" and values[key[1]] is not UNBOUND:
                values[key[1]] = Partial(self)
        for key, arg in args.items():
            kind = key[0]
            if kind == "prompt":
                self.states[key[1]]._prompt = arg
            elif kind == "count":
                self.states[key[1]]._offset, self.states[key[1]]._calls = arg, 0
            elif kind == "variable":
                self.states[key[1]]._variables[key[2]] = Sym(self, arg, arg.type)
            else:
                values[key[1]] = Sym(self, arg, arg.type)
        put(tuple(values))
        return tuple(values)

    def _widen(self, traced: Round, carried: dict[Key, types.Type], lost: set[Key],
               states: Sequence[dict[str, Any]], values: Sequence[Any]) -> bool:
        """Take note of what the round changes; whether there is anything new."""
        new = bool(traced.lost - lost)
        lost |= traced.lost
        for key, end in traced.ends.items():
            if key[0] == "prompt":
                type_ = types.PROMPT
            elif key[0] == "count":
                type_ = types.INT
            else:
                first = (states[key[1]]["variables"].get(key[2], UNBOUND) if key[0] == "variable"
                         else values[key[1]])
                both = [carried_type(first), carried_type(end)]
                if None in both:
                    new |= key not in lost
                    lost.add(key)
                    continue
                type_ = both[0] if both[0] == both[1] else types.ANY  # type: ignore[assignment]
                if carried.get(key) == types.ANY:
                    type_ = types.ANY
            if carried.get(key) != type_:
                carried[key], new = type_, True
        return new
