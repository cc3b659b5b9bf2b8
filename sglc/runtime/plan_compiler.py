"""A plan (or kv-stage, or prompt-stage) program turned into steps that instances run.

Regions are flattened: a region's steps wait for its activation besides their operands.  Steps on
constants alone are done here, once, so that instances share the prompt values they make.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from sglc.config import GenParams
from sglc.errors import IRError
from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.ops import SAMPLING_ATTRS
from sglc.ir.signatures import BRANCHES, LOOPS, awaited, offsets
from sglc.ir.types import KV, PROMPT
from sglc.runtime.choice_ids import ChoiceIds, with_pieces
from sglc.runtime.followers import is_followed
from sglc.runtime.origins import Origins
from sglc.runtime.plan_code import (
    UNSET,
    GenSpec,
    Group,
    HostSpec,
    PlanCode,
    ReadSpec,
    SelectSpec,
    Step,
)
from sglc.runtime.pure_steps import PURE, picture
from sglc.runtime.rounds import Rounds
from sglc.tokens.branches import Branches
from sglc.tokens.prompt import Prompt
from sglc.tokens.text_prompt import MessageTemplate
from sglc.tokens.tokenizer import Tokenizer

_NONE: frozenset[int] = frozenset()

_INLINE = ("plan.group", "plan.issue")
_ROLE_BEGINS = ("kv.role_begin", "prompt.role_begin")
_ROLE_ENDS = ("kv.role_end", "prompt.role_end")
_CHAIN = ("prompt.host", "prompt.check", "prompt.break", "prompt.read")
_SKIP = ("kv.release", "kv.pin", "plan.await")


class _Compiler:
    def __init__(self, program: Program, tokenizer: Tokenizer | None, rounds: Rounds,
                 template: Any) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.rounds = rounds
        self.code = PlanCode()
        self.slots: dict[Value, int] = {}
        self.literals: dict[Lit, int] = {}
        self.program = program
        self.region_binds: dict[int, dict[Any, int]] = {}
        self.n_sources = 0
        self.sources: dict[int, frozenset[int]] = {-1: _NONE}  # of each slot
        self.activations = self.code.activations
        self.last_host: int | None = None  # source of the chain's last step, in program order
        self.after: dict[int, int] = {}  # step of the chain -> the source it must wait for
        self.lists: dict[Value, list[int]] = {}  # the slots of what loops collected
        self.origins = Origins()  # of prompts
        self.chained = holders(program)

    def run(self) -> PlanCode:
        code = self.code
        for arg in self.program.args:
            code.arg_slots[arg.name] = self.slots[arg] = self.new_slot()
        self.block(self.program.body, (), 0)
        self.group()
        # The variables that a slot's value becomes, with the source that each waits for.
        named: dict[int, list[tuple[Any, int | None]]] = {}
        for step in code.steps:
            if step.kind == "bind":
                named.setdefault(step.inputs[0], []).append(
                    (step.data, self.after.get(step.order)))
        for i, _ in code.gens:
            step = code.steps[i]
            known = step.outputs[0] if step.data[1].offset else step.key
            code.stream_names[known] = named.get(step.outputs[1], [])
        end = self.program.body.terminator
        if end is not None and end.operands and isinstance(end.operands[0], Value):
            code.chain = self.origins.chain(self.slot(end.operands[0]))
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
            if operand in self.lists and operand not in self.slots:  # as a Python list, after all
                self.slots[operand] = self.new_slot()
                self.step("pure", tuple(self.lists[operand]), (self.slots[operand],), (),
                          lambda *values: list(values))
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
        if op.name in BRANCHES:
            self.branch(op, activation, rank)
            return
        if op.name in LOOPS:
            self.loop(op, activation, rank)
            return
        if self.is_item(op):
            return
        if op.name in _ROLE_BEGINS or op.name in _ROLE_ENDS:
            self.role(op, activation)
            return
        if op.name == "prompt.batch":
            self.slots[op.results[0]] = self.new_slot()
            self.code.batch_slots.append(self.slots[op.results[0]])
            return
        if op.name == "kv.encode":  # encoding happens in kv.extend, in context
            self.slots[op.results[0]] = self.slot(op.operands[1])
            return
        make = PURE.get(op.name)
        if make is not None or op.name == "prompt.image":
            fn = picture(op, self.template) if make is None else make(op, self.tokenizer)
            inputs = [self.slot(o) for o in op.operands]
            values = [self.code.initial[s] for s in inputs]
            # Constants may be computed outside their region: they have no effect.
            shared = op.results[0].type.name not in ("json", "list", "any")  # may be mutable
            shared &= op.name not in ("kv.image", "prompt.image")  # a file, read in each run
            if shared and not any(v is UNSET for v in values):
                try:
                    self.slots[op.results[0]] = self.new_slot(fn(*values))
                    self.made(op, activation)
                    return
                except Exception:
                    pass  # raised again at run time, if the program gets there
            self.add("pure", op, activation, fn)
            self.made(op, activation)
            return
        if op.name in ("kv.decode", "prompt.gen"):
            given = {k: v for k, v in op.attrs.items() if k in SAMPLING_ATTRS}
            path, inputs, offset = self.path(op)
            spec = GenSpec(GenParams(**given), path, op.attrs.get("name"), rank, offset,
                           op.attrs.get("reader", -1), op.loc, bool(op.attrs.get("fused")),
                           op.attrs.get("most_tokens"),
                           op.name != "prompt.gen" or is_followed(
                               op.results[0], self.program,
                               isinstance(self.template, MessageTemplate)),
                           self.rides(op))
            self.code.gens.append((len(self.code.steps), spec))
            step = self.add("gen", op, activation, (len(self.code.gens) - 1, spec), inputs)
            step.key = ("call", spec.path)
            self.made(op, activation, None if offset else step.key)
        elif op.name in ("kv.score", "prompt.select"):
            path, inputs, offset = self.path(op)
            choose = SelectSpec(path, op.attrs.get("method", "token_length_normalized"),
                                op.attrs.get("name"), rank, offset, self.choice_ids(inputs, op))
            step = self.add("select", op, activation, choose, inputs)
            step.key = ("call", choose.path)
            self.made(op, activation, None if offset else step.key)
        elif op.name == "kv.prefill":
            self.add("prefill", op, activation)
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
        elif op.name == "prompt.read":
            spec = ReadSpec(self.slot(op.operands[0]), op.loc)
            inputs = [self.slot(o) for o in awaited(op)]
            self.chain(self.add("read", op, activation, spec, inputs), activation)
        elif op.name == "prompt.return":
            self.add("return", op, activation)
        elif op.name == "prompt.yield":
            return  # made by `branch`
        else:
            raise IRError("SGLC201", f"the executor has no operation {op.name}", place=op.loc)

    def path(self, op: Op) -> tuple[tuple[int, ...], list[int], tuple[int, ...]]:
        """A call's path, its inputs, and where in the path the last of these are to be added."""
        path, offset = list(op.attrs["path"]), tuple(op.attrs.get("offset", ()))
        inputs = [self.slot(o) for o in op.operands]
        shifts = [self.code.initial[s] for s in inputs[len(inputs) - len(offset):]]
        if any(n is UNSET for n in shifts):
            return tuple(path), inputs, offset
        for position, n in zip(offset, shifts, strict=True):
            path[position] += n
        return tuple(path), inputs[: len(inputs) - len(offset)], ()

    def made(self, op: Op, activation: tuple[int, ...], key: Any = None) -> None:
        """Note how a prompt came about, for streams."""
        if op.results[0].type in (KV, PROMPT) and op.operands:
            self.origins.grown(self.slots[op.results[0]], activation, self.slot(op.operands[0]),
                               key)

    def choice_ids(self, inputs: Sequence[int], op: Op) -> ChoiceIds | None:
        """The ids of constant choices, with what the compiler knows of them."""
        if op.name != "kv.score":  # for backends that take text
            return None
        n = len(op.operands) - len(offsets(op))
        choices = [self.code.initial[slot] for slot in inputs[1:n]]
        if "" in choices or not all(type(c) is str for c in choices) \
                or len(set(choices)) != len(choices):
            return None  # checked at run time
        found = ChoiceIds(self.tokenizer, choices, op.attrs.get("then", ()))
        if "ids" in op.attrs:
            a = op.attrs
            found.learn(a["after"], bool(a.get("first")), Branches(
                array("q", a["shared"]), tuple([array("q", row) for row in a["ids"]])))
        return found

    def rides(self, op: Op) -> tuple[array[int], ...]:
        """What may follow the prompt of a gen of few texts: each with its constants."""
        if "then" not in op.attrs:
            return ()
        assert self.tokenizer is not None
        border = Prompt(self.tokenizer, array("q"), "", False, None, None)
        return tuple([
            with_pieces(border.generated(tuple(self.tokenizer.encode(text, False)), text),
                        pieces).token_ids() for text, *pieces in op.attrs["then"]])

    def is_item(self, op: Op) -> bool:
        """Whether the op takes a known item out of what a loop collected."""
        if not (op.name in ("kv.item", "prompt.item") or (
                op.name == "prompt.compute" and op.attrs["fn"] == "getitem")):
            return False
        items = self.lists.get(op.operands[0])  # type: ignore[call-overload]
        number = self.code.initial[self.slot(op.operands[1])]
        if items is None or type(number) is not int or not -len(items) <= number < len(items):
            return False
        self.slots[op.results[0]] = items[number]
        return True

    def role(self, op: Op, activation: tuple[int, ...]) -> None:
        """The template's pieces around a message, now that what comes before it is known."""
        counts = iter([self.rounds.value(o, op) for o in op.operands[1:]])
        history: list[str] = []
        for role in op.attrs.get("history") or ():
            history.extend([role] if isinstance(role, str) else role * next(counts))
        side = self.template.open if op.name in _ROLE_BEGINS else self.template.close
        pieces = [p if isinstance(p, str) else p.id
                  for p in side(tuple(history), op.attrs["role"])]
        self.add("pure", op, activation, lambda prompt: with_pieces(prompt, pieces),
                 [self.slot(op.operands[0])])
        self.made(op, activation)

    def loop(self, op: Op, activation: tuple[int, ...], rank: int) -> None:
        """The rounds of a loop, one after the other."""
        region = op.regions[0]
        number, *carried = region.args
        end = region.terminator
        assert end is not None
        slots = [self.slot(o) for o in op.operands[1:]]
        lists: list[list[int]] = [[] for _ in op.results[len(carried):]]
        for i in self.rounds.of(op):
            self.slots[number] = self.slot(Lit(i))
            self.slots.update(zip(carried, slots, strict=True))
            for inner in region.walk():  # those of the round before
                for result in inner.results:
                    if self.lists.pop(result, None) is not None:
                        self.slots.pop(result, None)
            self.block(region, activation, rank)
            ends = [self.slot(o) for o in end.operands]
            slots = ends[: len(carried)]
            for items, slot in zip(lists, ends[len(carried):], strict=True):
                items.append(slot)
        self.slots.update(zip(op.results, slots, strict=False))
        self.lists.update(zip(op.results[len(carried):], lists, strict=True))

    def add(self, kind: str, op: Op, activation: tuple[int, ...], data: Any = None,
            inputs: Sequence[int] | None = None) -> Step:
        calls = ("gen", "select", "host", "check", "break", "read")
        source = self.new_source() if kind in calls else None
        outputs = []
        for result in op.results:
            self.slots[result] = self.new_slot(source=source)
            outputs.append(self.slots[result])
        if inputs is None:
            inputs = [self.slot(o) for o in op.operands]
        self.code.ops[len(self.code.steps)] = op
        return self.step(kind, tuple(inputs), tuple(outputs), activation, data,
                         -1 if source is None else source)

    def host(self, op: Op, activation: tuple[int, ...]) -> None:
        """A step of the host chain: it runs after the one before it."""
        kind = op.name.partition(".")[2]
        a = op.attrs
        if "call" not in a:
            raise IRError("SGLC201", "a host call of parsed IR has no function to call",
                          place=op.loc)
        operands = awaited(op)
        root = self.slot(op.operands[-1]) if a.get("root") else -1
        spec = HostSpec(a["call"], a.get("args", len(operands)), a["fn"], a.get("event", -1), root,
                        a.get("tries", False))
        step = self.add(kind, op, activation, spec)
        step.inputs = tuple(self.slot(o) for o in operands)
        # Arms of a branch may hold calls of the same key: only one of them runs.
        step.key = ("host", a["ordinal"]) if kind == "host" else ("event", spec.event)
        self.chain(step, activation)
        self.code.chained = True

    def chain(self, step: Step, activation: tuple[int, ...]) -> None:
        """Put a step at the end of the host chain."""
        if self.last_host is not None:
            self.after[step.order] = self.last_host
        self.last_host = step.source
        if step.data.root >= 0:
            self.origins.stepped(step.data.root, activation, step.source)

    def step(self, kind: str, inputs: tuple[int, ...], outputs: tuple[int, ...],
             activation: tuple[int, ...], data: Any = None, source: int = -1) -> Step:
        step = Step(kind, inputs, outputs, data, len(self.code.steps), source)
        self.code.steps.append(step)
        if kind in ("bind", "meta", "message") and self.last_host is not None:
            self.after[step.order] = self.last_host  # it happens only if that did not raise
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
        data: dict[str, Any] = {"labels": labels, "arms": arms, "binds": [], "merge": merge,
                                "results": results, "event": op.attrs.get("event", -1)}
        chained = op in self.chained
        if chained:  # the chain goes through the arms: not if there is no telling which
            self.chain(self.step("read", (self.slot(op.operands[0]),), (), activation,
                                 ReadSpec(place=op.loc), self.new_source()), activation)
        before = self.last_host
        self.step("branch", (self.slot(op.operands[0]),), tuple(regions), activation, data)
        ends: list[tuple[int, ...]] = []
        for region, slot in zip(op.regions, regions, strict=True):
            inner = (*activation, slot)
            self.last_host = before
            self.block(region, inner, rank)
            end = region.terminator
            assert end is not None
            ends.append(tuple(self.slot(o) for o in end.operands))
            last = self.step("yield", ends[-1], results, inner, source=merge)
            if self.last_host is not None and self.last_host != before:
                self.after[last.order] = self.last_host
        self.last_host = before
        left: int | None = None
        if chained:  # behind the branch it waits for the arm that was taken to end
            left = self.new_source()
            self.chain(self.step("read", (self.new_slot(None, merge),), (), activation,
                                 ReadSpec(), left), activation)
            self.origins.left(activation, regions, left)
        data["binds"] = [self.region_binds.get(slot, {}) for slot in regions]
        for i, result in enumerate(results):
            if op.results[i].type in (KV, PROMPT):
                self.origins.merged(result, activation, [
                    (region, values[i]) for region, values in zip(regions, ends, strict=True)],
                    left)


def holders(program: Program) -> set[Op]:
    """The ops with steps of the host chain in their regions."""
    found: set[Op] = set()
    for op in program.walk():
        at = op.block if op.name in _CHAIN else None
        while at is not None and isinstance(at.parent, Op) and at.parent not in found:
            found.add(at.parent)
            at = at.parent.block
    return found


def compile_plan(program: Program, tokenizer: Tokenizer | None,
                 arguments: Mapping[str, Any] | None = None, template: Any = None) -> PlanCode:
    """Steps for a program of the kv or plan stage, or of the prompt stage for models that take
    text (`tokenizer` is then None).

    arguments: by name; needed where the program has loops, whose rounds they give.  template:
    of chat messages; needed where they are still there: in loops, and in the prompt stage.
    """
    return _Compiler(program, tokenizer, Rounds(program, arguments or {}), template).run()
