"""Generations of few possible texts get choice types, and what these rule out goes.

A regex, dtype, schema or grammar of at most `most` texts makes a generation's result a
`!choice<...>` where nothing can end it early.  Comparisons that come out the same for every text
become that literal, cases that no text takes go.  A text may always have been cut short (by
`max_tokens`, a stop, the end of the context), so beginnings of texts count as possible, and the
case for anything else stays.  Preserves text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sglc.errors import GrammarError
from sglc.ir.module import Attr, Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.signatures import fits
from sglc.ir.types import TEXT, choice
from sglc.passes.base import Pass, PassContext
from sglc.passes.constraints import GENS, compiled, constrained, stops
from sglc.passes.edit import replace
from sglc.passes.literals import Unknown, compute_value

_MOST_CASES = 4000  # texts and their beginnings; more are not followed

Image = tuple[Value, Mapping[str, Attr]]
"""A value as a function of the text that another one holds."""

Env = Mapping[Value, frozenset[str]]
"""Which texts values can still hold, where conditions around have told."""


@dataclass(frozen=True)
class RefineChoices(Pass):
    """Give choice types to generations of at most `most` texts."""

    name: ClassVar[str] = "refine-choices"
    most: int = 64

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"choices": 0, "computes": 0, "branches": 0, "cases": 0}
        for program in module.programs.values():
            _Refiner(program, self.most, context, stats).visit(program.body, {})
        return stats


class _Refiner:
    def __init__(self, program: Program, most: int, context: PassContext,
                 stats: dict[str, int]) -> None:
        self.most = most
        self.context = context
        self.stats = stats
        self.images: dict[Value, Image] = {}
        # A trace that goes on after a break is found by the outcomes of all decisions before.
        self.decides = not any(op.name in ("prompt.break", "prompt.check")
                               for op in program.walk())

    def visit(self, block: Block, env: Env) -> None:
        kept: list[Op] = []
        for op in list(block.ops):
            if op.name in GENS:
                self._gen(op)
            elif op.name == "prompt.compute" and self._compute(op, env):
                continue
            elif op.name == "prompt.if":
                self._if(op, env)
            elif op.name == "prompt.switch":
                op = self._switch(op, env)
            else:
                for region in op.regions:
                    self.visit(region, env)
            kept.append(op)
        block.ops = kept

    def _gen(self, op: Op) -> None:
        value = op.results[1]
        if (value.type != TEXT or self.context.may_stop or op.attrs.get("heal")
                or "reader" in op.attrs
                or op.attrs.get("n") not in (None, 1)):
            return
        texts = few_texts(op, self.most, self.context)
        if not texts:
            return
        cases = {text[:n] + end for text in texts for n in range(len(text) + 1)
                 for end in ("", "\ufffd") if not end or text[n:n + 1] > "\x7f"}
        if len(cases) <= _MOST_CASES:
            self.images[value] = value, {text: text for text in cases}
        if self._is_whole(op, texts):
            value.type = choice(*texts)
            self.stats["choices"] += 1
            if self.context.rewrites is not None:
                self.context.record("choice", op.name, value.type, op.loc)

    def _is_whole(self, op: Op, texts: tuple[str, ...]) -> bool:
        """Whether the generation ends with one of the texts, unless the context's end cuts it."""
        most = op.attrs.get("max_tokens", self.context.max_tokens)
        return (most is not None and most >= max(len(t.encode()) for t in texts)
                and not op.attrs.get("stop_regex") and not op.attrs.get("stop_token_ids")
                and not any(stop in text for stop in stops(op) for text in texts))

    def _compute(self, op: Op, env: Env) -> bool:
        """Note what the op makes of each text; whether that is one value, and the op gone."""
        found = {image[0]: image for o in op.operands if (image := self._image(o)) is not None}
        if len(found) != 1 or sum(isinstance(o, Value) for o in op.operands) != sum(
                self._image(o) is not None for o in op.operands):
            return False
        (source, given), = found.values()
        result = op.results[0]
        values: dict[str, Attr] = {}
        try:
            for text in given:
                values[text] = compute_value(op.attrs["fn"], [
                    o if isinstance(o, Lit) else Lit(self.images[o][1][text])
                    for o in op.operands], result.type.name).value
        except Unknown:
            return False
        self.images[result] = source, values
        outcomes = {Lit(values[text]) for text in self._possible(source, given, env)}
        if len(outcomes) != 1 or not self.decides:
            return False
        (value,) = outcomes
        if not fits(value.type, result.type) and any(
                u.name == "prompt.yield" for u in result.uses):
            return False
        self._note("computes", op, value)
        replace(op, (value,))
        return True

    def _image(self, operand: Operand) -> Image | None:
        return self.images.get(operand) if isinstance(operand, Value) else None

    def _possible(self, source: Value, given: Mapping[str, Attr], env: Env) -> frozenset[str]:
        return env[source] if source in env else frozenset(given)

    def _if(self, op: Op, env: Env) -> None:
        image = self._image(op.operands[0])
        if image is None:
            for region in op.regions:
                self.visit(region, env)
            return
        source, values = image
        possible = self._possible(source, values, env)
        yes = frozenset(text for text in possible if values[text])
        if self.decides and yes in (possible, frozenset()):
            op.set_operands((Lit(bool(yes)), *op.operands[1:]))
            self._note("branches", op, "then" if yes else "else")
        for region, texts in zip(op.regions, (yes, possible - yes), strict=True):
            self.visit(region, {**env, source: texts})

    def _switch(self, op: Op, env: Env) -> Op:
        """The switch without the cases that cannot be."""
        predicate = op.operands[0]
        image = self._image(predicate)
        if image is None:
            for region in op.regions:
                self.visit(region, env)
            return op
        source, values = image
        possible = self._possible(source, values, env)
        labels = {region.label for region in op.regions}
        kept: list[Block] = []
        for region in op.regions:
            texts = frozenset(
                text for text in possible
                if (values[text] == region.label if region.label != "default"
                    else values[text] not in labels))
            # Each text of a choice needs a case.
            if region.label == "default" or texts or region.label in predicate.type.args:
                self.visit(region, {**env, source: texts})
                kept.append(region)
        if len(kept) == len(op.regions):
            return op
        self.stats["cases"] += len(op.regions) - len(kept)
        self.context.record("cases", op.name, [r.label for r in kept], op.loc)
        new = Op(op.name, op.operands, op.attrs, [r.type for r in op.results], kept, op.loc,
                 [r.name for r in op.results])
        for region in op.regions:
            if region not in kept:
                for inner in reversed(list(region.ops)):
                    inner.drop()
        op.regions = ()
        new.block = op.block
        replace(op, new.results)
        return new

    def _note(self, rule: str, op: Op, after: object) -> None:
        self.stats[rule] += 1
        if self.context.rewrites is not None:
            self.context.record(rule, op.name, after, op.loc)


def few_texts(op: Op, most: int, context: PassContext) -> tuple[str, ...] | None:
    """The texts that the constraint of a generation allows, if there are few."""
    what = constrained(op)
    if not what:
        return None
    from sglc.grammar.automaton import Automaton
    from sglc.grammar.fsm import FsmConstraint
    from sglc.grammar.nfa import Limits, TooLarge
    from sglc.grammar.regex_parser import parse_regex

    if context.tokenizer is not None:
        constraint = compiled(op, context.tokenizer)
        return constraint.automaton.texts(most) if isinstance(constraint, FsmConstraint) else None
    if "regex" not in what:
        return None
    try:
        return Automaton(parse_regex(what["regex"]), Limits()).texts(most)
    except (GrammarError, TooLarge):
        return None
