"""`if` statements whose arms rejoin: both arms are traced at once into one `prompt.if`.

Without this, every undecided `if` would double the paths.  Arms may append, gen, select and
assign; what differs behind them (prompts, variables, locals, the number of gens) comes out of
the `if` as its results.  Where an arm does more, the `if` is explored path by path instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglc.ir import types
from sglc.ir.module import Block, Lit, Op, Operand, Value
from sglc.trace.breaks import GraphBreak, NotMergeable
from sglc.trace.computing import Computing
from sglc.trace.explore import Segment
from sglc.trace.symbols import Partial, Sym

UNBOUND = object()  # the value of a local that is not bound
KEEP = object()  # of one that no arm assigns: its objects are those of the run


@dataclass(slots=True)
class Merge:
    """What an `if` leaves: per state its new fields, and the locals."""

    states: list[dict[str, Any]]
    locals: tuple[Any, ...]
    reads: list[Value] = field(default_factory=list)


class Regions(Computing):
    """The part of a session that merges the arms of `if` statements."""

    def branch(self, condition: Sym, then: Callable[[], None], otherwise: Callable[[], None],
               get: Callable[[], tuple[Any, ...]], put: Callable[[tuple[Any, ...]], None]) -> bool:
        """Trace both arms of an undecided `if`; False if it must be explored instead.

        get and put read and set the locals that the arms assign.
        """
        if self.settled(condition) is not None:
            return False
        recorder = self.recorder
        event = recorder.events
        if event < len(recorder.given):
            return False  # decided: the caller takes that arm
        self.check_alone()
        self.bind_changed()  # not in one arm alone
        spot = (id(recorder.segment), recorder.cursor)
        if spot in recorder.unmergeable:
            return False
        recorded = recorder.replayed
        if recorded is not None and recorded in recorder.merges:
            merge = recorder.merges[recorded]
            recorder.cursor += 1
        else:
            made = self._trace_arms(condition, then, otherwise, get, put)
            if made is None:
                recorder.unmergeable.add(spot)
                return False
            op, merge = made
            recorder.merges[op] = merge
        recorder.events = event + 1
        recorder.tell()
        for state, fields in zip(self.states, merge.states, strict=True):
            state.restore(fields)
        put(tuple(now if new is KEEP else new
                  for now, new in zip(get(), merge.locals, strict=True)))
        for value in merge.reads:
            self.waited(value)
        return True

    def _trace_arms(self, condition: Sym, then: Callable[[], None],
                    otherwise: Callable[[], None], get: Callable[[], tuple[Any, ...]],
                    put: Callable[[tuple[Any, ...]], None]) -> tuple[Op, Merge] | None:
        recorder = self.recorder
        home, cursor, events = recorder.segment, recorder.cursor, recorder.events
        before, locals_before = [s.fields() for s in self.states], get()
        reads, unchecked, sound = dict(self.reads), dict(self.unchecked), self.sound.mark()
        calls, excluded, nested = len(self.calls), dict(self.excluded), list(self.nested)
        arms: list[tuple[Block, list[dict[str, Any]], tuple[Any, ...], list[Value]]] = []
        blocks: list[Block] = []
        self.depth += 1
        try:
            for arm, outcome in ((then, True), (otherwise, False)):
                self.excluded = dict(excluded)
                self.learn(condition, outcome)
                segment = Segment(home.builder.region())
                blocks.append(segment.builder.block)
                recorder.segment, recorder.cursor = segment, 0
                self.reads, self.unchecked = {}, dict(unchecked)
                self.sound.back(sound)
                arm()
                self.check_alone()
                if len(self.states) != len(before):
                    raise NotMergeable
                fields = [s.fields() for s in self.states]
                for f in fields:
                    f["count"] = self._count(f)
                waits = [self._plain(v) for v in self.reads if not self.sound.is_read(v)]
                arms.append((segment.builder.block, fields, get(), waits))
                self._back(before, locals_before, put)
            merged = self._merge(locals_before, arms)
        except (NotMergeable, GraphBreak, Exception) as e:
            if not isinstance(e, NotMergeable) and not recorder.given:
                raise  # else the run may not take that arm
            merged = None
            self.nested[:] = nested
            del self.states[len(before):]
            self._back(before, locals_before, put)
            for block in blocks:
                for op in reversed(list(block.ops)):
                    op.drop()
        finally:
            self.depth -= 1
            recorder.segment, recorder.cursor, recorder.events = home, cursor, events
            self.reads, self.unchecked, self.excluded = reads, unchecked, excluded
            self.alone = None
            self.sound.back(sound)
            del self.calls[calls:]
        if merged is None:
            return None
        results, build = merged
        place = self.place()
        op = home.builder.op(
            "prompt.if", (condition.operand,), {"event": events},
            [t for t, _, _ in results], place, (), [b for b, _, _, _ in arms])
        for i, (block, _, _, _) in enumerate(arms):
            block.append(Op("prompt.yield", [r[1 + i] for r in results], None, (), (), place))
        home.log.append(op)
        recorder.cursor += 1
        return op, build(op)

    def _back(self, fields: Sequence[dict[str, Any]], values: tuple[Any, ...],
              put: Callable[[tuple[Any, ...]], None]) -> None:
        for state, f in zip(self.states, fields, strict=True):
            state.restore(f)
        put(values)

    def _merge(self, before: Sequence[Any], arms: Sequence[Any]) -> Any:
        """The results of the `if` as (type, then, else), and what makes the Merge of its op."""
        (_, then_states, then_locals, then_reads), (_, else_states, else_locals, else_reads) = arms
        results: list[tuple[types.Type, Operand, Operand]] = []

        def phi(type_: types.Type, a: Operand, b: Operand) -> int:
            results.append((type_, a, b))
            return len(results) - 1

        def value(a: Any, b: Any) -> Any:
            """The value itself, or (result number, type)."""
            if a is b or (type(a) is type(b) and isinstance(a, (str, int, float))
                          and repr(a) == repr(b)):
                return a
            for v in (a, b):
                if v is UNBOUND or isinstance(v, Partial):
                    return Partial(self)
                if not isinstance(v, (Sym, str, int, float, type(None))):
                    raise NotMergeable
            ta, tb = (v.type if isinstance(v, Sym) else types.of_literal(v) for v in (a, b))
            if types.is_text(ta) and types.is_text(tb):
                type_ = types.TEXT
            else:
                type_ = ta if ta == tb and ta.name in ("int", "float", "bool") else types.ANY
            return _Phi(phi(type_, self.operand(a), self.operand(b)), type_)

        plans = []
        for a, b in zip(then_states, else_states, strict=True):
            plan = dict(a)
            for same in ("roles", "forks", "closed", "begin"):
                if a[same] != b[same]:
                    raise NotMergeable
            if a["prompt"] is not b["prompt"]:
                plan["prompt"] = _Phi(phi(types.PROMPT, a["prompt"], b["prompt"]), types.PROMPT)
            if (a["calls"], a["offset"]) != (b["calls"], b["offset"]):
                plan["offset"] = _Phi(phi(types.INT, a["count"], b["count"]), types.INT)
                plan["calls"] = 0
            plan["variables"] = {
                k: value(a["variables"][k], b["variables"][k])
                if k in a["variables"] and k in b["variables"] else Partial(self)
                for k in {**a["variables"], **b["variables"]}}
            plan["metas"] = {
                k: a["metas"][k] if a["metas"].get(k) is b["metas"].get(k) else Partial(self)
                for k in {**a["metas"], **b["metas"]}}
            plans.append(plan)
        values = tuple(
            KEEP if a is old and b is old else value(a, b) if _plain_value(a) else _no_merge()
            for old, a, b in zip(before, then_locals, else_locals, strict=True))
        waits = []
        for i in range(max(len(then_reads), len(else_reads))):
            pair = [r[i] if i < len(r) else Lit(None) for r in (then_reads, else_reads)]
            waits.append(phi(types.ANY, pair[0], pair[1]))

        def build(op: Op) -> Merge:
            def real(v: Any) -> Any:
                if isinstance(v, _Phi):
                    out = op.results[v.number]
                    return out if v.type == types.PROMPT else Sym(self, out, v.type)
                return v

            states = []
            for plan in plans:
                new = {k: real(v) for k, v in plan.items()}
                new["variables"] = {k: real(v) for k, v in plan["variables"].items()}
                if isinstance(new["offset"], Sym):
                    new["offset"] = new["offset"].operand
                states.append(new)
            return Merge(states, tuple(map(real, values)), [op.results[i] for i in waits])

        return results, build

    def _plain(self, value: Value) -> Value:
        """A plain value that is there when `value` is: an `if` gives no prompts to wait for."""
        if value.type == types.PROMPT:
            return self.emit("prompt.text", (value,), {}, (types.TEXT,)).results[0]
        if value.type in (types.META, types.SCORES):
            return self.emit("prompt.compute", (value,), {"fn": "is_none"},
                             (types.BOOL,)).results[0]
        return value

    def _count(self, fields: dict[str, Any]) -> Operand:
        """How many gens and selects a state has made; to be asked inside the arm."""
        if fields["offset"] is None:
            return Lit(fields["calls"])
        if not fields["calls"]:
            return fields["offset"]  # type: ignore[no-any-return]
        return self.emit("prompt.compute", (fields["offset"], Lit(fields["calls"])),
                         {"fn": "add"}, (types.INT,)).results[0]


def _plain_value(value: Any) -> bool:
    """Whether a local can be given to a later run of the body as it is."""
    return value is UNBOUND or isinstance(value, (Sym, Partial, str, int, float, type(None)))


def _no_merge() -> Any:
    raise NotMergeable


@dataclass(frozen=True, slots=True)
class _Phi:
    number: int
    type: types.Type
