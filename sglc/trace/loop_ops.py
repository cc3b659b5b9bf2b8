"""A traced round as a `prompt.for` or `prompt.map`, and what holds behind such a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sglc.ir import types
from sglc.ir.module import Lit, Op, Operand, Program, Value
from sglc.ir.signatures import LOOPS
from sglc.trace.groups import LoopGroup
from sglc.trace.regions import UNBOUND
from sglc.trace.rounds import Get, Key, Loop, Put, Round, carried_type
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Partial, Sym

if TYPE_CHECKING:
    from sglc.trace.session import Session


def loop_op(session: Session, seq: Seq, traced: Round, carried: dict[Key, types.Type],
            states: Sequence[dict[str, Any]], values: Sequence[Any]) -> tuple[Op, Loop]:
    """The op of a loop of which one round is known, and what the loop leaves.

    carried: what each round hands to the next, by type.  states, values: the fields of the states
    and the locals before the loop.
    """
    recorder = session.recorder
    builder = recorder.segment.builder
    inits, ends = [], []
    for key in carried:
        if key[0] == "prompt":
            inits.append(states[key[1]]["prompt"])
        elif key[0] == "count":
            fields = states[key[1]]
            inits.append(Lit(fields["calls"]) if fields["offset"] is None else fields["offset"])
        elif key[0] == "variable":
            inits.append(session.operand(states[key[1]]["variables"][key[2]]))
        else:
            inits.append(session.operand(values[key[1]]))
        end = traced.ends.get(key, traced.args[key])
        ends.append(end if isinstance(end, (Value, Lit)) else session.operand(end))
    left: dict[Key, Operand] = {}
    for key, end in traced.ends.items():
        if key not in carried and carried_type(end) is not None and _is_new(key, states, values):
            left[key] = session.operand(end)
    for group, (first, last) in traced.children.items():
        at = session.groups.index(group)
        state_prompt = last["prompt"]
        left["child", at, "prompt"] = state_prompt
        for name, value in last["variables"].items():
            if carried_type(value) is not None and not _is_old(group, first, name, value):
                left["child", at, "variable", name] = session.operand(value)
    for i, wait in enumerate(traced.waits):
        left["wait", i] = wait
    for k, operand in traced.built:
        left["built", k] = operand
    collected = list(left.values())
    attrs = {"collected": len(collected)} if collected else {}
    place = session.place()
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
        at = session.groups.index(group)
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


def leave(session: Session, loop: Loop, seq: Seq, get: Get, put: Put) -> list[Seq]:
    """Make the states and locals those behind the loop; the lists that it built."""
    values = list(get())

    def last(listed: Value) -> Any:
        if seq.size.recipe is None and seq.size.operand not in session.filled:
            return Partial(session)
        session.at_least(seq.size, 1)
        type_ = listed.type.args[0]
        assert isinstance(type_, types.Type)
        op = session.emit("prompt.compute", (listed, Lit(-1)), {"fn": "getitem"}, (type_,))
        return Sym(session, op.results[0], type_)

    for i, roles in loop.turns.items():
        session.states[i].repeat(roles, seq.size.operand)
    for key, result in loop.results.items():
        if key[0] == "prompt":
            session.states[key[1]]._prompt = result
        elif key[0] == "count":
            session.states[key[1]]._offset, session.states[key[1]]._calls = result, 0
        elif key[0] == "variable":
            session.states[key[1]]._variables[key[2]] = Sym(session, result, result.type)
        else:
            values[key[1]] = Sym(session, result, result.type)
    for key in loop.lost:
        if key[0] == "variable":
            session.states[key[1]]._variables[key[2]] = Partial(session)
        elif key[0] == "meta":
            session.states[key[1]]._metas[key[2]] = Partial(session)  # type: ignore[assignment]
        elif key[0] == "local":
            values[key[1]] = Partial(session)
    for key, listed in loop.left.items():
        if key[0] == "variable":
            session.states[key[1]]._variables[key[2]] = last(listed)
        else:
            values[key[1]] = last(listed)
    built = {k: session.collected(listed, seq.size) for k, listed in loop.built.items()}
    for k, made in built.items():
        values[k] = made
    for at, fields in loop.children:
        session.groups[at].restore(fields)
    put(tuple(values))
    for value in loop.waits:
        session.waited(value)
    return list(built.values())


def _is_new(key: Key, states: Sequence[dict[str, Any]], values: Sequence[Any]) -> bool:
    """Whether a variable or local came about in the loop, or nobody knows what it was."""
    before = UNBOUND
    if key[0] == "variable":
        before = states[key[1]]["variables"].get(key[2], UNBOUND)
    elif key[0] == "local":
        before = values[key[1]]
    return key[0] in ("variable", "local") and (
        before is UNBOUND or isinstance(before, Partial))


def _is_old(group: LoopGroup, first: dict[str, Any], name: Any, value: Any) -> bool:
    """Whether a child has a variable from before the loop."""
    if name in first["variables"]:
        op = value.operand.op if isinstance(value, Sym) and isinstance(
            value.operand, Value) else None
        return (op is not None and op.name == "prompt.compute"
                and op.operands[0] is first["variables"][name])
    return name in group.inherited and group.inherited[name] is value


def drop_unread(program: Program) -> None:
    """Take out the last items of what loops collected that nothing reads (they cannot raise:
    a guard says that there is one)."""
    for op in list(program.walk()):
        source = op.operands[0] if op.attrs.get("fn") == "getitem" else None
        if (isinstance(source, Value) and source.op is not None and source.op.name in LOOPS
                and op.operands[1] == Lit(-1) and not op.results[0].uses):
            op.erase()
