"""Loops over lists of any length: one round is traced, into a `prompt.for` or `prompt.map`.

A program that was compiled for many lengths is traced once more this way.  A round may do what an
arm of an `if` may (see `regions.py`): append, generate, assign.  What one round changes and the
next one sees is carried; what each round leaves (a variable, the end of a fork's child, an item of
a list that the body builds) is collected.  Where a body does more, there is no such trace, and
each length keeps its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglc.ir import types
from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.signatures import LOOPS
from sglc.trace.breaks import NotMergeable
from sglc.trace.explore import Segment
from sglc.trace.guards import MISSING, Guard, uniform
from sglc.trace.hosts import Built, Given
from sglc.trace.regions import UNBOUND, Regions
from sglc.trace.sequences import Seq
from sglc.trace.state import LoopGroup, TraceState
from sglc.trace.symbols import Frozen, Partial, Sym

Key = tuple[Any, ...]  # ("prompt", state) ("count", state) ("variable", state, name) ("local", k)
Get = Callable[[], tuple[Any, ...]]
Put = Callable[[tuple[Any, ...]], None]

_WHOLE = (sorted, max, min, sum, any, all)  # of the items' values
MAX_TRIES = 8  # rounds traced until all that changes is known


@dataclass(eq=False, slots=True)
class Frame:
    """A loop whose round is being traced.  children: the states of forks that it goes through.
    shared: lists that something else than a local holds; built: those that it appends to, and
    what."""

    number: Value
    size: Sym
    depth: int
    shared: set[int]
    children: dict[LoopGroup, TraceState] = field(default_factory=dict)
    built: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)


class Growing(Partial):
    """A list that every round of a loop appends to: what it holds then is not known."""

    __slots__ = ("frame",)

    def __init__(self, session: Any, frame: Frame) -> None:
        super().__init__(session)
        self.frame = frame

    def append(self, value: Any) -> None:
        session = self._session
        if session.frames[-1] is not self.frame or session.depth != self.frame.depth:
            raise NotMergeable
        self.frame.built.setdefault(id(self), (self, []))[1].append(value)

    def refuse(self, *args: Any) -> Any:
        raise self._session.broken(
            "SGLC110", "a list is read in the loop that appends to it, whose length is known at "
            "run time only")

    __bool__ = __len__ = __iter__ = __getitem__ = __call__ = __contains__ = refuse
    __add__ = __radd__ = __mul__ = __eq__ = __lt__ = __gt__ = refuse  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = __hash__ = __index__ = refuse  # type: ignore[assignment]


@dataclass(slots=True)
class Round:
    """One traced round.  args: of its region, by what they carry.  ends: what a key is at the
    end.  lost: what changes and can be seen neither by the next round nor behind the loop.
    waits: what was read; built: by local, what was appended to a list.  turns: the roles of the
    messages that it adds to a state."""

    block: Block
    args: dict[Key, Value]
    ends: dict[Key, Any]
    lost: set[Key]
    children: dict[LoopGroup, tuple[dict[str, Any], dict[str, Any]]]  # fields at first, at last
    waits: list[Value]
    built: list[tuple[int, Operand]]
    turns: dict[int, tuple[str, ...]]


@dataclass(slots=True)
class Loop:
    """What a recorded loop leaves: results by key, and what of the rest is lost."""

    results: dict[Key, Value]
    lost: set[Key]
    left: dict[Key, Value]
    waits: list[Value]
    built: dict[int, Value]  # by local
    turns: dict[int, tuple[str, ...]]  # state -> roles of the messages of each round
    children: list[tuple[int, dict[str, Any]]]  # group -> its new fields


class Loops(Regions):
    """The part of a session that traces loops of run-time length.

    groups: forks of run-time size.  frames: the loops that are being traced, outermost first.
    shown: lists that host calls were given.  filled: sizes of lists in arguments, which the
    shape of the arguments says are at least 1.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups: list[LoopGroup] = []
        self.frames: list[Frame] = []
        self.shown: dict[Operand, None] = {}
        self.filled: set[Operand] = set()

    def restart(self) -> None:
        super().restart()
        self.groups, self.frames = [], []
        self.shown, self.filled = {}, set()

    # -- sequences ------------------------------------------------------------------------
    def sequence(self, value: Any) -> Seq | None:
        """What a loop over the value goes through, if it has run-time length."""
        if isinstance(value, Seq):
            return value
        if isinstance(value, LoopGroup):
            return Seq(self, value.size, lambda i: self._child_of(value, i),
                       "the states of a fork", made=True)
        if self.dynamic and isinstance(value, Sym) and value.recipe and value.example is MISSING:
            value.type = types.JSON  # an argument that is not given: taken to be a list of texts
            if isinstance(value.operand, Value) and value.operand.op is None:
                value.operand.type = types.JSON
            return self._of_list(value, [""], "an argument")
        return None

    def list_given(self, operand: Operand, recipe: Any, example: list[Any], what: str) -> Seq:
        """An argument that is a list of items of one shape."""
        return self._of_list(Sym(self, operand, types.JSON, recipe, example), example, what)

    def _part(self, whole: Sym, what: str) -> Seq:
        """A list that is made from an argument."""
        if whole.example is MISSING:
            return self._of_list(whole, [""], what)  # as the argument itself
        if not isinstance(whole.example, list) or not whole.example:
            raise self.need(whole, "the items")
        return self._of_list(whole, whole.example, what)

    def _of_list(self, whole: Sym, example: list[Any], what: str) -> Seq:
        size = self.compute("len", whole)
        if whole.recipe is None or _is_part(whole.recipe):
            self.filled.add(size.operand)

        def pick(number: Sym) -> Any:
            return self._element(whole.operand, number.operand, example[0], f"an item of {what}")

        return Seq(self, size, pick, what, whole)

    def _element(self, operand: Operand, key: Operand, example: Any, what: str) -> Any:
        """An item of a list or dict in a loop, of the shape of an example."""
        if example is None or type(example) is bool:
            return example  # all items are the same there
        kind = type(example)
        plain = kind in (str, int, float)
        type_ = types.of_literal(example) if plain else (
            types.JSON if kind in (list, tuple, dict) else types.ANY)
        value = self.emit("prompt.compute", (operand, key), {"fn": "getitem"}, (type_,)).results[0]
        if kind is list and uniform(example):
            return self._of_list(Sym(self, value, types.JSON, None, example), example, what)
        if kind in (list, tuple, dict):
            keys = list(example) if kind is dict else list(range(len(example)))
            items = [self._element(value, Lit(k), example[k], what) for k in keys]
            return Frozen(self, kind, items, keys if kind is dict else None, what)
        return Sym(self, value, type_)

    def still_as_given(self, seq: Seq) -> None:
        """Refuse a list once the user's Python may have changed it."""
        if (self.hosts and not seq.made) or (
                seq.whole is not None and seq.whole.operand in self.shown):
            raise self.need(seq, "the items, after a call,")

    def _for_host(self, value: Any) -> Any:
        """A list of run-time length, for a host call: an argument itself, or a list of its own
        (what the call does to it is not seen: the body must not read the list again)."""
        if not isinstance(value, Seq):
            return super()._for_host(value)
        whole = value.value()
        if not value.made and whole.recipe is not None and _is_part(whole.recipe):
            return Given(whole.recipe)
        if not value.made or not _is_list_of_plain(whole.type):
            raise self.need(value, "the items, for a call,")
        self.shown[whole.operand] = None
        return Built(_copied, (whole,))

    def item_of(self, seq: Seq, key: Any) -> Any:
        """`seq[key]`."""
        self.still_as_given(seq)
        if isinstance(key, Sym):
            if any(f.number is key.operand and self._same_size(f.size, seq.size)
                   for f in self.frames):
                return seq.pick(key)
            raise self.need(seq, "an item")
        if isinstance(key, slice):
            whole = seq.whole
            if whole is None or whole.recipe is None or any(
                    type(k) not in (int, type(None)) for k in (key.start, key.stop, key.step)):
                raise self.need(seq, "a slice")
            part = self.compute("slice", whole, key.start, key.stop, key.step)
            return self._part(part, f"a slice of {seq.what}")
        if type(key) is not int:
            raise self.need(seq, "an item")
        self.at_least(seq.size, key + 1 if key >= 0 else -key)
        return seq.pick(Sym(self, Lit(key), types.INT))

    def at_least(self, size: Sym, least: int) -> None:
        """Rely on a size: a guard."""
        if (size.recipe is not None and size.example is MISSING) or (
                least == 1 and size.operand in self.filled):
            return  # not to be run, or known
        if size.recipe is None or size.example < least:
            raise self.need(size, "the number of items")
        self.guards.setdefault(Guard(("fn", "ge", size.recipe, ("lit", least)), True))

    def _same_size(self, a: Sym, b: Sym) -> bool:
        """Whether two sizes are the same in all runs of this variant: by a guard."""
        if a.operand == b.operand:
            return True
        if a.recipe is None or b.recipe is None or a.example != b.example:
            return False
        if a.example is MISSING:
            return True  # not to be run
        self.guards.setdefault(Guard(("fn", "eq", a.recipe, b.recipe), True))
        return True

    def builtin(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A builtin function of sequences; NotImplemented for anything else."""
        if fn is range:
            return self._range(args)
        found = [self.sequence(a) for a in args]
        if not any(s is not None for s in found):
            return NotImplemented
        first = found[0]
        if fn is len and first is not None:
            self.still_as_given(first)
            return first.size
        if fn is list and first is not None and isinstance(args[0], Seq):
            if first.made or first.whole is None:
                return first  # nothing changes it
            copy = self.compute("slice", first.whole, None, None, None)
            return Seq(self, first.size, first.pick, first.what, copy)
        if fn is tuple and first is not None and isinstance(args[0], Seq):
            return Seq(self, first.size, first.pick, first.what, made=first.made)
        if fn is isinstance and first is not None and first.whole is not None:
            return issubclass(list, args[1])
        if fn in _WHOLE and len(args) == 1 and not kwargs and first is not None and (
                first.whole is not None and first.whole.recipe is not None):
            made = self.compute(fn.__name__, first.value())
            return made if fn is not sorted else self._part(made, f"{first.what}, sorted")
        if fn is reversed and first is not None and isinstance(args[0], Seq):
            last, forward = self.compute("sub", first.size, 1), first.pick
            return Seq(self, first.size, lambda i: forward(self.compute("sub", last, i)),
                       first.what, made=first.made)
        if fn is enumerate and first is not None:
            start = args[1] if len(args) > 1 else kwargs.get("start", 0)
            pick = first.pick
            return Seq(self, first.size, lambda i: (i if start == 0 else self.compute(
                "add", i, start), pick(i)), first.what, made=first.made)
        if fn is zip:
            if any(s is None or not self._same_size(s.size, found[0].size)  # type: ignore
                   for s in found):
                raise self.need(args[0], "the number of items")
            picks = [s.pick for s in found if s is not None]
            return Seq(self, found[0].size,  # type: ignore[union-attr]
                       lambda i: tuple(p(i) for p in picks), "zip()",
                       made=all(s.made for s in found if s is not None))
        if any(isinstance(a, LoopGroup) for a in args):
            raise self.need(args[0], "the number of forks")
        return NotImplemented

    def _range(self, args: tuple[Any, ...]) -> Any:
        if not any(isinstance(a, Sym) for a in args) or len(args) > 2:
            return NotImplemented
        start, stop = args if len(args) == 2 else (0, args[0])
        size = stop if type(start) is int and start == 0 else self.compute("sub", stop, start)
        if size.type != types.INT or not self._is_given(size.operand):
            return NotImplemented
        if size.recipe is not None:
            if size.example is not MISSING and (type(size.example) is not int
                                                or size.example < 1):
                return NotImplemented
            self.at_least(size, 1)
            size = Sym(self, size.operand, types.INT, size.recipe, size.example)
        return Seq(self, size, lambda i: i if type(start) is int and start == 0 else self.compute(
            "add", i, start), "range()", made=True)

    def _is_given(self, operand: Operand) -> bool:
        """Whether arguments and numbers of rounds alone say what a value is."""
        if isinstance(operand, Lit):
            return True
        op = operand.op
        if op is None:
            return operand in self.recorder.root.builder.block.args or any(
                operand is f.number for f in self.frames)
        return op.name in ("prompt.compute", "prompt.format") and all(
            map(self._is_given, op.operands))

    def joined(self, separator: str, seq: Seq) -> Any:
        """`separator.join(seq)`."""
        whole = seq.value()
        if whole.type != types.list_of(types.TEXT):
            return self.compute("text.join", separator, whole)
        op = self.emit("prompt.compute", (Lit(separator), whole.operand), {"fn": "text.join"},
                       (types.TEXT,))
        return Sym(self, op.results[0], types.TEXT)

    # -- forks of run-time size -------------------------------------------------------------
    def child(self, group: LoopGroup, number: Operand) -> TraceState | None:
        """The state of a fork that the round of this number works on; None outside loops."""
        for frame in self.frames:
            if frame.number is number and self._same_size(frame.size, group.size):
                if group not in frame.children:
                    frame.children[group] = group.state(number)
                return frame.children[group]
        return None

    def _child_of(self, group: LoopGroup, number: Sym) -> TraceState:
        child = self.child(group, number.operand)
        if child is None:
            raise self.need(number, "the number of a state")
        return child

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

    def listed(self, group: LoopGroup, values: Operand) -> Seq:
        """A variable of all states of a fork, as a list."""
        return self._collected(values, group.size)

    def _collected(self, values: Operand, size: Sym) -> Seq:
        element = values.type.args[0]
        assert isinstance(element, types.Type)

        def pick(number: Sym) -> Any:
            op = self.emit("prompt.compute", (values, number.operand), {"fn": "getitem"},
                           (element,))
            return Sym(self, op.results[0], element)

        return Seq(self, size, pick, "a list of the loop's", Sym(self, values, values.type),
                   made=True)

    # -- loops ----------------------------------------------------------------------------
    def collect(self, seq: Seq, fn: Callable[[Any], Any]) -> Seq:
        """`[fn(item) for item in seq]`."""
        out: list[Any] = []
        self.run_loop(seq, lambda item: self.append(out, fn(item)), lambda: (out,), hidden=True)
        return self.last_built[0]

    def append(self, target: list[Any], value: Any) -> bool:
        """`target.append(value)` of a list of the body's in a round; False outside loops."""
        if not self.frames:
            return False
        frame = self.frames[-1]
        if self.depth != frame.depth or target or id(target) in frame.shared:
            raise NotMergeable
        frame.built.setdefault(id(target), (target, []))[1].append(value)
        return True

    def run_loop(self, seq: Seq, body: Callable[[Any], None], get: Get = lambda: (),
             put: Put = lambda values: None, own: tuple[int, ...] = (),
             hidden: bool = False) -> None:
        """Go through a sequence: trace a round, or take the recorded loop.

        own: the locals that each round begins by assigning.  hidden: the body cannot read the
        list that it builds.
        """
        recorder = self.recorder
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
        self._behind(loop, seq, get, put)

    def _trace_loop(self, seq: Seq, body: Callable[[Any], None], get: Get, put: Put,
                    hidden: bool) -> tuple[Op, Loop]:
        recorder = self.recorder
        home, cursor, events = recorder.segment, recorder.cursor, recorder.events
        states, groups = [s.fields() for s in self.states], [g.fields() for g in self.groups]
        shared = _shared(get)
        values, reads, calls = get(), dict(self.reads), len(self.calls)
        excluded = dict(self.excluded)
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
        return self._loop_op(seq, traced, carried, states, values)

    def _round(self, seq: Seq, body: Callable[[Any], None], get: Get, put: Put,
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
        ends: dict[Key, Any] = {}
        turns: dict[int, tuple[str, ...]] = {}
        gone: set[Key] = set()
        for i, (state, first) in enumerate(zip(self.states[:before], fields, strict=True)):
            last = state.fields()
            for same in ("begin", "forks"):
                if last[same] != first[same]:
                    raise NotMergeable
            if last["roles"] != first["roles"]:
                turns[i] = _turns(first["roles"], last["roles"])
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
        waits = [self._plain(v) for v in self.reads]
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
                both = [_type(first), _type(end)]
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

    def _loop_op(self, seq: Seq, traced: Round, carried: dict[Key, types.Type],
                 states: Sequence[dict[str, Any]], values: Sequence[Any]) -> tuple[Op, Loop]:
        recorder = self.recorder
        builder = recorder.segment.builder
        inits, ends = [], []
        for key in carried:
            if key[0] == "prompt":
                inits.append(states[key[1]]["prompt"])
            elif key[0] == "count":
                fields = states[key[1]]
                inits.append(Lit(fields["calls"]) if fields["offset"] is None else fields["offset"])
            elif key[0] == "variable":
                inits.append(self.operand(states[key[1]]["variables"][key[2]]))
            else:
                inits.append(self.operand(values[key[1]]))
            end = traced.ends.get(key, traced.args[key])
            ends.append(end if isinstance(end, (Value, Lit)) else self.operand(end))
        left: dict[Key, Operand] = {}
        for key, end in traced.ends.items():
            if key not in carried and _type(end) is not None and self._is_new(key, states, values):
                left[key] = self.operand(end)
        for group, (first, last) in traced.children.items():
            at = self.groups.index(group)
            state_prompt = last["prompt"]
            left["child", at, "prompt"] = state_prompt
            for name, value in last["variables"].items():
                if _type(value) is not None and not self._is_old(group, first, name, value):
                    left["child", at, "variable", name] = self.operand(value)
        for i, wait in enumerate(traced.waits):
            left["wait", i] = wait
        for k, operand in traced.built:
            left["built", k] = operand
        collected = list(left.values())
        attrs = {"collected": len(collected)} if collected else {}
        place = self.place()
        name = "prompt.for" if inits else "prompt.map"
        op = builder.op(name, (seq.size.operand, *inits), attrs,
                        [*carried.values(), *(types.list_of(o.type) for o in collected)], place,
                        (), [traced.block])
        traced.block.append(Op("prompt.yield", [*ends, *collected], None, (), (), place))
        recorder.segment.log.append(op)
        recorder.cursor += 1
        lists = dict(zip(left, op.results[len(carried):], strict=True))
        children = []
        for group, (first, last) in traced.children.items():
            at = self.groups.index(group)
            variables = {key[3]: v for key, v in lists.items()
                         if key[:3] == ("child", at, "variable")}
            children.append((at, {
                "prompts": lists["child", at, "prompt"], "calls": last["calls"],
                "forks": last["forks"], "variables": {**first["variables"], **variables},
                "metas": dict.fromkeys({**first["metas"], **last["metas"]}, True)}))
        lost = {key for key in traced.ends if key not in carried and key not in left} | traced.lost
        return op, Loop(
            dict(zip(carried, op.results, strict=False)), lost,
            {k: v for k, v in lists.items() if k[0] in ("variable", "local")},
            [v for k, v in lists.items() if k[0] == "wait"],
            {k[1]: v for k, v in lists.items() if k[0] == "built"}, traced.turns, children)

    @staticmethod
    def _is_new(key: Key, states: Sequence[dict[str, Any]], values: Sequence[Any]) -> bool:
        """Whether a variable or local came about in the loop, or nobody knows what it was."""
        before = UNBOUND
        if key[0] == "variable":
            before = states[key[1]]["variables"].get(key[2], UNBOUND)
        elif key[0] == "local":
            before = values[key[1]]
        return key[0] in ("variable", "local") and (
            before is UNBOUND or isinstance(before, Partial))

    @staticmethod
    def _is_old(group: LoopGroup, first: dict[str, Any], name: Any, value: Any) -> bool:
        """Whether a child has a variable from before the loop."""
        if name in first["variables"]:
            op = value.operand.op if isinstance(value, Sym) and isinstance(
                value.operand, Value) else None
            return (op is not None and op.name == "prompt.compute"
                    and op.operands[0] is first["variables"][name])
        return name in group.inherited and group.inherited[name] is value

    def _behind(self, loop: Loop, seq: Seq, get: Get, put: Put) -> None:
        """Make the states and locals those behind the loop."""
        values = list(get())

        def last(listed: Value) -> Any:
            if seq.size.recipe is None and seq.size.operand not in self.filled:
                return Partial(self)
            self.at_least(seq.size, 1)
            type_ = listed.type.args[0]
            assert isinstance(type_, types.Type)
            op = self.emit("prompt.compute", (listed, Lit(-1)), {"fn": "getitem"}, (type_,))
            return Sym(self, op.results[0], type_)

        for i, roles in loop.turns.items():
            self.states[i].repeat(roles, seq.size.operand)
        for key, result in loop.results.items():
            if key[0] == "prompt":
                self.states[key[1]]._prompt = result
            elif key[0] == "count":
                self.states[key[1]]._offset, self.states[key[1]]._calls = result, 0
            elif key[0] == "variable":
                self.states[key[1]]._variables[key[2]] = Sym(self, result, result.type)
            else:
                values[key[1]] = Sym(self, result, result.type)
        for key in loop.lost:
            if key[0] == "variable":
                self.states[key[1]]._variables[key[2]] = Partial(self)
            elif key[0] == "meta":
                self.states[key[1]]._metas[key[2]] = Partial(self)  # type: ignore[assignment]
            elif key[0] == "local":
                values[key[1]] = Partial(self)
        for key, listed in loop.left.items():
            if key[0] == "variable":
                self.states[key[1]]._variables[key[2]] = last(listed)
            else:
                values[key[1]] = last(listed)
        self.last_built = []
        for k, listed in loop.built.items():
            values[k] = self._collected(listed, seq.size)
            self.last_built.append(values[k])
        for at, fields in loop.children:
            self.groups[at].restore(fields)
        put(tuple(values))
        for value in loop.waits:
            self.reads[value] = None


def drop_unread(program: Program) -> None:
    """Take out the last items of what loops collected that nothing reads (they cannot raise:
    a guard says that there is one)."""
    for op in list(program.walk()):
        source = op.operands[0] if op.attrs.get("fn") == "getitem" else None
        if (isinstance(source, Value) and source.op is not None and source.op.name in LOOPS
                and op.operands[1] == Lit(-1) and not op.results[0].uses):
            op.erase()


def _turns(first: tuple[Any, Any], last: tuple[Any, Any]) -> tuple[str, ...]:
    """The roles of the messages that a round adds; each must be closed in it."""
    (before, opened), (after, still_open) = first, last
    added = after[len(before):]
    if opened or still_open or after[: len(before)] != before or not all(
            isinstance(role, str) for role in added):
        raise NotMergeable
    return added


def _is_part(recipe: Any) -> bool:
    """Whether a recipe is an argument itself, or a part of one."""
    return recipe[0] == "arg" or (recipe[0] == "item" and _is_part(recipe[1]))


def _is_list_of_plain(type_: types.Type) -> bool:
    """Whether it is a list of values that never change."""
    return type_.name == "list" and isinstance(type_.args[0], types.Type) and (
        types.is_text(type_.args[0]) or type_.args[0].name in ("int", "float", "bool"))


def _copied(items: list[Any]) -> list[Any]:
    return list(items[0])


def _references(get: Get) -> list[tuple[Any, int]]:
    return [(v, sys.getrefcount(v)) for v in get()]


def _shared(get: Get) -> set[int]:
    """The lists among locals that something else holds too, by identity."""
    alone: list[Any] = []
    ((_, least),) = _references(lambda: (alone,))
    return {id(v) for v, references in _references(get)
            if type(v) is list and references > least}


def _type(value: Any) -> types.Type | None:
    """The type of a value that a loop can carry or collect; None if it cannot."""
    if isinstance(value, Sym):
        return types.TEXT if value.is_text else value.type
    if isinstance(value, (str, int, float)) or value is None:
        return types.of_literal(value)
    return None
