"""A plan (or kv-stage) program turned into steps that instances run.

Regions are flattened: a region's steps wait for its activation besides their operands.  Steps on
constants alone are done here, once, so that instances share the prompt values they make.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sglc.config import GenParams
from sglc.errors import IRError
from sglc.ir import compute
from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.ops import SAMPLING_ATTRS
from sglc.tokens.prompt import Prompt
from sglc.tokens.tokenizer import Encoded, Tokenizer


@dataclass(frozen=True, slots=True)
class GenSpec:
    """A decode step: which gen, with what parameters."""

    params: GenParams
    path: tuple[int, ...]
    name: Any
    rank: int
    offset: bool = False  # the last input is added to the path's last number


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A step of the host chain: which call, with how many of the inputs, which event it is, and
    the slot of the prompt that is kept if it raises."""

    call: int
    args: int
    name: str
    event: int = -1
    root: int = -1


@dataclass(frozen=True, slots=True)
class SelectSpec:
    path: tuple[int, ...]
    method: str
    name: Any
    rank: int
    offset: bool = False


@dataclass(slots=True, eq=False)
class Step:
    """One operation of the flattened program.

    kind: what the executor does; inputs/outputs: slots; data: whatever the kind needs; order:
    place in the program; source: for model and host calls, branches' arms and merges, what they
    set off; key: what a call is known by in the log of a run: a gen's path, a host call's number
    on its path.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    data: Any = None
    order: int = 0
    source: int = -1
    key: Any = None


@dataclass(slots=True)
class Group:
    """Steps that can run, in program order, once all of `sources` have happened."""

    sources: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class PlanCode:
    """The steps of a program.

    A *source* is something that happens at run time: a model call's end, the choice of a
    branch's arm, the end of an arm.  Steps are grouped by the sources they wait for; group 0
    waits for none.

    initial: values of all slots before a run (UNSET where run-time).  arg_slots: slot of each
    argument.  waiting: source -> groups, smaller ones first.  counts: how many sources each group
    waits for.  binds: variable name -> how many steps bind it.  chain: how the result's text
    comes about, for streams (see `stream_chain`).
    """

    arg_slots: dict[str, int] = field(default_factory=dict)
    initial: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    waiting: list[list[int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    binds: dict[Any, int] = field(default_factory=dict)
    gens: list[tuple[int, GenSpec]] = field(default_factory=list)
    chained: bool = False  # there are host calls, checks or breaks
    chain: list[Any] = field(default_factory=list)
    stream_names: dict[Any, list[Any]] = field(default_factory=dict)  # gen -> its variables


class _Unset:
    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
_NONE: frozenset[int] = frozenset()

_INLINE = ("plan.group", "plan.issue")
_SKIP = ("kv.release", "kv.pin", "plan.await")


class _Compiler:
    def __init__(self, program: Program, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.code = PlanCode()
        self.slots: dict[Value, int] = {}
        self.literals: dict[Lit, int] = {}
        self.program = program
        self.region_binds: dict[int, dict[Any, int]] = {}
        self.n_sources = 0
        self.sources: dict[int, frozenset[int]] = {-1: _NONE}  # of each slot
        self.activations: list[int] = []  # of each step: the slot of its region, or -1
        self.last_host: int | None = None  # source of the host call before, in program order
        self.after: dict[int, int] = {}  # host step -> the source it must wait for

    def run(self) -> PlanCode:
        code = self.code
        for arg in self.program.args:
            code.arg_slots[arg.name] = self.slots[arg] = self.new_slot()
        self.block(self.program.body, (), 0)
        self.group()
        for i, _ in code.gens:
            value = code.steps[i].outputs[1]
            code.stream_names[code.steps[i].key] = [s.data for s in code.steps
                                    if s.kind == "bind" and s.inputs[0] == value]
        end = self.program.body.terminator
        if end is not None and end.operands and isinstance(end.operands[0], Value):
            code.chain = self.stream_chain(end.operands[0], None)
        return code

    def group(self) -> None:
        """Sort the steps into groups by what they wait for."""
        code = self.code
        groups: dict[frozenset[int], Group] = {frozenset(): Group(())}
        for step in code.steps:
            sources = frozenset().union(*[self.sources[s] for s in step.inputs],
                                        self.sources.get(self.activations[step.order], _NONE))
            if step.order in self.after:
                sources |= {self.after[step.order]}
            if step.kind == "pure":
                for slot in step.outputs:
                    self.sources[slot] = sources
            if sources not in groups:
                groups[sources] = Group(tuple(sorted(sources)))
            groups[sources].steps.append(step)
        # A step needs only steps of groups that wait for a subset of its sources.
        code.groups = sorted(groups.values(), key=lambda g: len(g.sources))
        code.counts = [len(g.sources) for g in code.groups]
        code.waiting = [[] for _ in range(self.n_sources)]
        for i, g in enumerate(code.groups):
            for source in g.sources:
                code.waiting[source].append(i)

    # -- slots ----------------------------------------------------------------------------
    def new_slot(self, value: Any = UNSET, source: int | None = None) -> int:
        self.code.initial.append(value)
        slot = len(self.code.initial) - 1
        self.sources[slot] = _NONE if source is None else frozenset((source,))
        return slot

    def new_source(self) -> int:
        self.n_sources += 1
        return self.n_sources - 1

    def slot(self, operand: Operand) -> int:
        if isinstance(operand, Value):
            return self.slots[operand]
        found = self.literals.get(operand)
        if found is None:
            found = self.literals[operand] = self.new_slot(operand.value)
        return found

    # -- steps ----------------------------------------------------------------------------
    def block(self, block: Block, activation: tuple[int, ...], rank: int) -> None:
        for op in block.ops:
            self.op(op, activation, rank)

    def op(self, op: Op, activation: tuple[int, ...], rank: int) -> None:
        if op.name in _SKIP:
            return
        if op.name in _INLINE:
            region = op.regions[0]
            self.block(region, activation, op.attrs.get("rank", rank))
            end = region.terminator
            assert end is not None
            for result, value in zip(op.results, end.operands, strict=True):
                self.slots[result] = self.slot(value)
            return
        if op.name == "plan.yield":
            return
        if op.name in ("prompt.if", "prompt.switch"):
            self.branch(op, activation, rank)
            return
        if op.name == "kv.encode":  # encoding happens in kv.extend, in context
            self.slots[op.results[0]] = self.slot(op.operands[1])
            return
        make = _PURE.get(op.name)
        if make is not None:
            fn = make(op, self.tokenizer)
            values = [self.code.initial[self.slot(o)] for o in op.operands]
            # Constants may be computed outside their region: they have no effect.
            shared = op.results[0].type.name not in ("json", "list", "any")  # may be mutable
            if shared and not any(v is UNSET for v in values):
                try:
                    self.slots[op.results[0]] = self.new_slot(fn(*values))
                    return
                except Exception:
                    pass  # raised again at run time, if the program gets there
            self.add("pure", op, activation, fn)
            return
        if op.name == "kv.decode":
            given = {k: v for k, v in op.attrs.items() if k in SAMPLING_ATTRS}
            spec = GenSpec(GenParams(**given), tuple(op.attrs["path"]), op.attrs.get("name"), rank,
                           bool(op.attrs.get("offset")))
            self.code.gens.append((len(self.code.steps), spec))
            step = self.add("gen", op, activation, (len(self.code.gens) - 1, spec))
            step.key = ("call", spec.path)
        elif op.name == "kv.score":
            choose = SelectSpec(
                tuple(op.attrs["path"]), op.attrs.get("method", "token_length_normalized"),
                op.attrs.get("name"), rank, bool(op.attrs.get("offset")))
            self.add("select", op, activation, choose).key = ("call", choose.path)
        elif op.name == "prompt.bind":
            name = op.attrs["name"]
            self.code.binds[name] = self.code.binds.get(name, 0) + 1
            for region in activation:
                binds = self.region_binds.setdefault(region, {})
                binds[name] = binds.get(name, 0) + 1
            self.add("bind", op, activation, name)
        elif op.name == "prompt.meta":
            self.add("meta", op, activation, op.attrs["name"])
        elif op.name == "prompt.message":
            self.add("message", op, activation, op.attrs["role"])
        elif op.name in ("prompt.host", "prompt.check", "prompt.break"):
            self.host(op, activation)
        elif op.name == "prompt.return":
            self.add("return", op, activation)
        elif op.name == "prompt.yield":
            return  # made by `branch`
        else:
            raise IRError("SGLC201", f"the executor has no operation {op.name}", place=op.loc)

    def add(self, kind: str, op: Op, activation: tuple[int, ...], data: Any = None) -> Step:
        calls = ("gen", "select", "host", "check", "break")
        source = self.new_source() if kind in calls else None
        outputs = []
        for result in op.results:
            self.slots[result] = self.new_slot(source=source)
            outputs.append(self.slots[result])
        return self.step(kind, tuple(self.slot(o) for o in op.operands), tuple(outputs),
                         activation, data, -1 if source is None else source)

    def host(self, op: Op, activation: tuple[int, ...]) -> None:
        """A step of the host chain: it runs after the one before it."""
        kind = op.name.partition(".")[2]
        a = op.attrs
        if "call" not in a:
            raise IRError("SGLC201", "a host call of parsed IR has no function to call",
                          place=op.loc)
        operands = op.operands[:-1] if a.get("root") else op.operands
        root = self.slot(op.operands[-1]) if a.get("root") else -1
        spec = HostSpec(a["call"], a.get("args", len(operands)), a["fn"], a.get("event", -1), root)
        step = self.add(kind, op, activation, spec)
        step.inputs = tuple(self.slot(o) for o in operands)
        # Arms of a branch may hold calls of the same key: only one of them runs.
        step.key = ("host", a["ordinal"]) if kind == "host" else ("event", spec.event)
        if self.last_host is not None:
            self.after[step.order] = self.last_host
        self.last_host = step.source
        self.code.chained = True

    def step(self, kind: str, inputs: tuple[int, ...], outputs: tuple[int, ...],
             activation: tuple[int, ...], data: Any = None, source: int = -1) -> Step:
        step = Step(kind, inputs, outputs, data, len(self.code.steps), source)
        self.code.steps.append(step)
        if kind in ("bind", "meta", "message") and self.last_host is not None:
            self.after[step.order] = self.last_host  # it happens only if that call returned
        # Only the innermost activation: it happens only where the outer ones did.
        self.activations.append(activation[-1] if activation else -1)
        return step

    def branch(self, op: Op, activation: tuple[int, ...], rank: int) -> None:
        merge = self.new_source()
        results = tuple(self.new_slot(source=merge) for _ in op.results)
        self.slots.update(zip(op.results, results, strict=True))
        arms = [self.new_source() for _ in op.regions]
        regions = [self.new_slot(source=arm) for arm in arms]
        labels = [True, False] if op.name == "prompt.if" else [r.label for r in op.regions]
        data: dict[str, Any] = {"labels": labels, "arms": arms, "binds": [], "op": op,
                                "event": op.attrs.get("event", -1)}
        before, hosts = self.last_host, False
        self.step("branch", (self.slot(op.operands[0]),), tuple(regions), activation, data)
        for region, slot in zip(op.regions, regions, strict=True):
            inner = (*activation, slot)
            self.last_host = before
            self.block(region, inner, rank)
            hosts |= self.last_host != before
            end = region.terminator
            assert end is not None
            last = self.step("yield", tuple(self.slot(o) for o in end.operands), results, inner,
                             source=merge)
            if self.last_host is not None and self.last_host != before:
                self.after[last.order] = self.last_host
        # Host calls behind the branch wait for the arm that was taken to end.
        self.last_host = merge if hosts else before
        data["binds"] = [self.region_binds.get(slot, {}) for slot in regions]

    # -- streams --------------------------------------------------------------------------
    def stream_chain(self, value: Value, stop: Block | None) -> list[Any]:
        """How a prompt value grew: entries (slot, previous slot, key of the gen or None), and
        ("branch", [(region slot, chain)]) where it came out of a branch."""
        out: list[Any] = []
        while True:
            op = value.op
            if op is None or (stop is not None and not _inside(op, stop)):
                break
            if op.name in _INLINE:
                inner = op.regions[0].terminator.operands[value.index]  # type: ignore[union-attr]
                if not isinstance(inner, Value):
                    break
                value = inner
                continue
            if op.name in ("prompt.if", "prompt.switch"):
                arms = []
                entry: Value | None = None
                for region in op.regions:
                    end = region.terminator.operands[value.index]  # type: ignore[union-attr]
                    if not isinstance(end, Value):
                        continue
                    arms.append((self._activation(op, region), self.stream_chain(end, region)))
                    first = _entry(end, region)
                    entry = first if entry is None else entry
                out.append(("branch", arms))
                if entry is None:
                    break
                value = entry
                continue
            operands = [o for o in op.operands if isinstance(o, Value)]
            if op.name in ("kv.root",) or not operands:
                break
            previous = operands[0]
            gen = next((s.key for s in self.code.steps
                        if s.kind in ("gen", "select") and self.slots[value] in s.outputs), None)
            out.append((self.slots[value], self.slots[previous], gen))
            value = previous
        out.reverse()
        return out

    def _activation(self, op: Op, region: Block) -> int:
        step = next(s for s in self.code.steps if s.kind == "branch" and s.data["op"] is op)
        return step.outputs[op.regions.index(region)]


def _inside(op: Op, block: Block) -> bool:
    while True:
        if op.block is block:
            return True
        parent = op.block.parent if op.block is not None else None
        if not isinstance(parent, Op):
            return False
        op = parent


def _entry(value: Value, block: Block) -> Value:
    """The first value of the chain of prompts behind `value` that is defined outside `block`."""
    while True:
        op = value.op
        if op is None or not _inside(op, block):
            return value
        if op.name in _INLINE or op.name in ("prompt.if", "prompt.switch"):
            inner = op.regions[0].terminator.operands[value.index]  # type: ignore[union-attr]
            assert isinstance(inner, Value)
            value = inner
            continue
        value = next(o for o in op.operands if isinstance(o, Value))


def _extend(prompt: Prompt, piece: Any) -> Prompt:
    return prompt.append_encoded(piece) if isinstance(piece, Encoded) else prompt.append(piece)


def _ids(op: Op) -> Encoded:
    a = op.attrs
    return Encoded(a["text"], array("q", a["ids"]), a["held"], a.get("after", ""))


def _compute(fn: str) -> Callable[..., Any]:
    python = compute.function(fn)
    return lambda *values: python(*values)


# op name -> (op, tokenizer) -> function of the operands' values
_PURE: dict[str, Callable[[Op, Tokenizer], Callable[..., Any]]] = {
    "kv.root": lambda op, tok: lambda: Prompt.empty(tok),
    "kv.ids": lambda op, tok: lambda: _ids(op),
    "kv.extend": lambda op, tok: _extend,
    "kv.special": lambda op, tok: (lambda prompt, i=op.attrs["id"]: prompt.special(i)),
    "kv.concat": lambda op, tok: lambda parent, child, base: parent.append_since(child, base),
    "prompt.text": lambda op, tok: lambda prompt: prompt.text(),
    "prompt.span": lambda op, tok: lambda begin, end: end.text_since(begin),
    "prompt.format": lambda op, tok: (
        lambda *values, parts=op.attrs["parts"]: compute.run_format(parts, values)),
    "prompt.compute": lambda op, tok: _compute(op.attrs["fn"]),
    "prompt.list": lambda op, tok: lambda *values: list(values),
}


def compile_plan(program: Program, tokenizer: Tokenizer) -> PlanCode:
    """Steps for a program of the kv or plan stage."""
    return _Compiler(program, tokenizer).run()
