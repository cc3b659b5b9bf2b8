"""What the calls of a plan keep for each other, and how much KV an instance needs.

From the steps alone: prompts are chains of slots, and a slot's KV is read again if several calls
have it on their way.  Sizes are sums over texts that are known when an instance starts, and over
the lengths of outputs, so they cost little for each row.  Texts that are not encoded yet are
estimated from their length, and what models or the user's Python write from what is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglc.ir.types import KV
from sglc.plan.planner import Need
from sglc.runtime.plan_code import UNSET, PlanCode, Step
from sglc.tokens.images import USUAL
from sglc.tokens.prompt import Prompt
from sglc.tokens.text import utf8
from sglc.tokens.tokenizer import Tokenizer

HOST_TIME = 32  # decoding steps that a host call is taken to last
SAMPLES = 4  # rows whose texts tell how many tokens a byte is

Sum = dict[Any, int]
"""How often each term counts: 1; ("text", slot), a text's tokens; ("step", order), what a call
gives; ("kv", slot, slot before), what a prompt adds to the one before."""
ALL = -1  # of `CallSizes.keep`: the output too


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A model call, or KV that is made ahead of one.

    keep: the slot up to which others read its KV, ALL, or None for nothing.  height: the longest
    way of outputs from it to the end, itself included, in tokens.
    """

    keep: int | None
    height: int


@dataclass(slots=True)
class _Region:
    """Sizes of what happens in one arm (or everywhere): a sum, and the arms inside, of each
    branch the largest counts."""

    kept: Sum = field(default_factory=dict)
    rest: Sum = field(default_factory=dict)
    branches: list[list[_Region]] = field(default_factory=list)


class PlanSizes:
    """The sizes of one plan code.

    bound: the output tokens of a model call, None if there is no tight bound; expected: those of
    any call, the user's included, as far as is known now.  Both by the call's step.
    """

    def __init__(self, code: PlanCode, tokenizer: Tokenizer,
                 bound: Callable[[Step], int | None], expected: Callable[[Step], int]) -> None:
        self.code = code
        self.bound = bound
        self.tokenizer = tokenizer
        self.expected = expected
        self._rate = 1.0  # tokens a byte, the most of some rows
        self._samples = 0
        self._steps: dict[int, list[tuple[Step, int]]] = {}  # what may set a slot
        for step in code.steps:
            for i, slot in enumerate(step.outputs):
                if step.kind != "branch":
                    self._steps.setdefault(slot, []).append((step, i))
        start = {s for step in code.groups[0].steps if step.kind == "pure" for s in step.outputs}
        self._known = start | set(code.arg_slots.values())
        self._texts: dict[int, Sum] = {}
        self.calls_at = {s.order: s for s in code.steps if s.kind in ("gen", "select")}
        readers: dict[int, int] = {}
        ways = {order: self._way(step.inputs[0]) for order, step in self.calls_at.items()}
        ahead = {s.order: self._way(s.inputs[0]) for s in code.steps if s.kind == "prefill"}
        for way in (*ways.values(), *ahead.values()):
            for slot in way:
                readers[slot] = readers.get(slot, 0) + 1
        self.common = self._common(ways.values())
        self._root = self._regions(ways, readers)
        heights = self._heights()
        alone = [self._alone(self.calls_at[order], way, readers) for order, way in ways.items()]
        self._calls = list({frozenset(terms.items()): terms for terms in alone}.values())
        self.calls = {order: CallPlan(self._keep(self.calls_at[order], readers), heights[order])
                      for order in self.calls_at}
        self.calls.update({order: CallPlan(ALL, 0) for order in ahead})

    # -- chains ------------------------------------------------------------------------------

    def _constant(self, slot: int) -> bool:
        return self.code.initial[slot] is not UNSET

    def _before(self, slot: int) -> list[int]:
        """The prompts that a prompt continues: one, or the ends of a branch's arms."""
        if self._constant(slot):
            return []
        out = []
        for step, i in self._steps.get(slot, ()):
            if step.kind == "yield":
                out.append(step.inputs[i])
            elif step.inputs:
                op = self.code.ops.get(step.order)
                if op is not None and op.operands and op.results[0].type == KV \
                        and op.operands[0].type == KV:
                    out.append(step.inputs[0])
        return out

    def _way(self, slot: int) -> dict[int, None]:
        """The slot and all before it."""
        way: dict[int, None] = {}
        stack = [slot]
        while stack:
            at = stack.pop()
            if at not in way:
                way[at] = None
                stack += self._before(at)
        return way

    def _common(self, ways: Iterable[dict[int, None]]) -> list[Prompt]:
        """The longest constant prompts on the ways of calls."""
        found: dict[int, Prompt] = {}
        for way in ways:
            for slot in way:  # the call's own end first
                value = self.code.initial[slot]
                if isinstance(value, Prompt):
                    found[slot] = value
                    break
        return list(found.values())

    def _keep(self, call: Step, readers: dict[int, int]) -> int | None:
        if readers.get(call.outputs[0]):
            return ALL
        for slot in self._way(call.inputs[0]):
            if readers[slot] > 1:
                return slot
        return None

    def _heights(self) -> dict[int, int]:
        below: dict[int, int] = {}
        heights = {}
        for step in reversed(self.code.steps):
            height = max([below.get(slot, 0) for slot in step.outputs], default=0)
            if step.order in self.calls_at:
                bound = 1 if step.kind == "select" else self.bound(step)
                height += 1 + (self.expected(step) if bound is None else bound)
                heights[step.order] = height
            elif step.kind == "host":
                height += HOST_TIME
            for slot in (*step.inputs, self.code.activations[step.order]):
                if slot >= 0 and below.get(slot, 0) < height:
                    below[slot] = height
        return heights

    # -- sums --------------------------------------------------------------------------------

    def _regions(self, ways: dict[int, dict[int, None]], readers: dict[int, int]) -> _Region:
        activations = self.code.activations
        regions: dict[int, _Region] = {-1: _Region()}
        for step in self.code.steps:
            if step.kind == "branch":
                arms = [regions.setdefault(slot, _Region()) for slot in step.outputs]
                regions[activations[step.order]].branches.append(arms)
        for slot, count in readers.items():
            if self._constant(slot):
                continue
            steps = self._steps.get(slot, ())
            if len(steps) != 1:
                continue
            region = regions[activations[steps[0][0].order]]
            _add(region.kept if count > 1 else region.rest, self._segment(slot))
        for order, call in self.calls_at.items():
            region = regions[activations[order]]
            count = readers.get(call.outputs[0], 0)
            if count == 1:  # it wrote what one other reads
                output = self._segment(call.outputs[0])
                _add(region.rest, output, -1)
                _add(region.kept, output)
            elif not count:
                _add(region.rest, self._segment(call.outputs[0]))
        return regions[-1]

    def _segment(self, slot: int) -> Sum:
        """What a prompt adds to the one before it."""
        (step, _), *_ = self._steps[slot]
        if slot in self._known:
            return {("kv", slot, self._before(slot)[0] if self._before(slot) else None): 1}
        if step.kind == "gen":
            return self._output(step)
        if step.kind == "select":
            return self._choices(step)
        op = self.code.ops.get(step.order)
        name = "" if op is None else op.name
        if name == "kv.extend":
            return self._text(step.inputs[1])
        if name == "kv.concat":
            return self._between(step.inputs[1], step.inputs[2])
        if name == "kv.image":
            images = self.tokenizer.images
            return {1: USUAL if images is None else images.most}
        return {1: 1 if name == "kv.special" else 8}  # a role's pieces

    def _between(self, end: int, begin: int | None) -> Sum:
        """The text that a prompt has more than one before it."""
        out: Sum = {}
        skip = {} if begin is None else self._way(begin)
        for slot in self._way(end):
            if slot not in skip:
                value = self.code.initial[slot]
                if isinstance(value, Prompt):
                    _add(out, {1: len(value.token_ids())})
                elif slot in self._steps:
                    _add(out, self._segment(slot))
        return out

    def _output(self, step: Step) -> Sum:
        bound = self.bound(step)
        return {("step", step.order): 1} if bound is None else {1: bound}

    def _choices(self, step: Step) -> Sum:
        ids = step.data.ids
        if ids is not None and ids.tokens is not None:
            return {1: ids.tokens}
        out: Sum = {}
        for slot in step.inputs[1:]:
            _add(out, self._text(slot))
        return out

    def _text(self, slot: int) -> Sum:
        """The tokens of a text."""
        found = self._texts.get(slot)
        if found is None:
            found = self._texts[slot] = self._new_text(slot)
        return found

    def _new_text(self, slot: int) -> Sum:
        value = self.code.initial[slot]
        if value is not UNSET:
            return {1: self._tokens(value)}
        if slot in self._known:
            return {("text", slot): 1}
        out: Sum = {}
        for step, i in self._steps.get(slot, ()):
            _add(out, self._made(step, i))
        return out

    def _made(self, step: Step, i: int) -> Sum:
        if step.kind == "gen":
            return self._output(step)
        if step.kind == "select":
            return self._choices(step)
        if step.kind == "host":
            return {("step", step.order): 1}
        if step.kind == "yield":
            return self._text(step.inputs[i])
        op = self.code.ops.get(step.order)
        name = "" if op is None else op.name
        if name == "prompt.text":
            return self._between(step.inputs[0], None)
        if name == "prompt.span":
            return self._between(step.inputs[1], step.inputs[0])
        out: Sum = {}
        if op is not None and name == "prompt.format":
            _add(out, {1: sum([self._tokens(p) for p in op.attrs["parts"] if type(p) is str])})
        for slot in step.inputs:
            _add(out, self._text(slot))
        return out

    def _tokens(self, value: Any) -> int:
        """Exactly, for a text of the program; a plan holds few others."""
        if isinstance(value, str):
            return len(self.tokenizer.encode(value))
        text = getattr(value, "text", None)
        return len(self.tokenizer.encode(text)) if isinstance(text, str) else 1

    def _alone(self, call: Step, way: dict[int, None], readers: dict[int, int]) -> Sum:
        """What a call has that no other reads."""
        out: Sum = {}
        for slot in way:
            if readers[slot] < 2 and not self._constant(slot) and slot in self._steps:
                _add(out, self._segment(slot))
        if not readers.get(call.outputs[0]):
            _add(out, self._segment(call.outputs[0]))
        return out

    # -- rows --------------------------------------------------------------------------------

    def need(self, env: Sequence[Any], shared: int) -> Need:
        """What an instance needs beyond the `shared` first tokens of its prompts.  `env`: its
        slots after its start."""
        if self._samples < SAMPLES:
            self._sample(env)
        known: dict[int, float] = {}
        kept, total = self._sizes(self._root, env, shared, known)
        call = max([self._value(terms, env, shared, known) for terms in self._calls], default=0)
        return Need(kept, min(kept + call, total), total)

    def _sizes(self, region: _Region, env: Sequence[Any], shared: int,
               known: dict[int, float]) -> tuple[int, int]:
        kept = self._value(region.kept, env, shared, known)
        total = kept + self._value(region.rest, env, shared, known)
        for arms in region.branches:
            sizes = [self._sizes(arm, env, shared, known) for arm in arms]
            kept += max([s[0] for s in sizes], default=0)
            total += max([s[1] for s in sizes], default=0)
        return kept, total

    def _value(self, terms: Sum, env: Sequence[Any], shared: int, known: dict[int, float]) -> int:
        """known: the lengths of this row's prompts, as far as they were asked for."""
        out = 0.0
        for term, times in terms.items():
            if term == 1:
                out += times
            elif term[0] == "step":
                step = self.code.steps[term[1]]
                size = self.expected(step)
                out += times * (size if step.kind == "gen" else size * self._rate)
            elif term[0] == "text":
                out += times * self._text_length(env[term[1]])
            else:
                length = self._length(term[1], env, known)
                before = 0.0 if term[2] is None else self._length(term[2], env, known)
                out += times * max(0, length - max(shared, before))
        return int(out) + 1 if out else 0

    def _length(self, slot: int, env: Sequence[Any], known: dict[int, float]) -> float:
        """Of a prompt, in tokens."""
        found = known.get(slot)
        if found is None:
            prompt = env[slot]
            found = 0.0  # of an arm that is not taken
            if isinstance(prompt, Prompt):
                found = len(prompt.ids) + (self._text_length(prompt.tail) if prompt.tail else 0)
            known[slot] = found
        return found

    def _text_length(self, text: Any) -> float:
        if not isinstance(text, str):
            return 1.0
        size = len(text) if text.isascii() else len(utf8(text))
        return min(size * self._rate + 1, size)

    def _sample(self, env: Sequence[Any]) -> None:
        """Learn how many tokens a byte is from the texts of a row."""
        size = tokens = 0
        for slot in self._known:
            text = env[slot]
            if isinstance(text, str) and len(text) > 16:
                size += len(utf8(text))
                tokens += len(self.tokenizer.encode(text))
        if size:
            rate = tokens / size
            self._rate = max(self._rate, rate) if self._samples else rate
            self._samples += 1


def _add(to: Sum, terms: Sum, times: int = 1) -> None:
    for term, n in terms.items():
        to[term] = to.get(term, 0) + times * n
        if not to[term]:
            del to[term]
