"""Constants are merged and evaluated, and decided branches inlined.  Preserves text.

Rules, applied to a fixpoint (bounded by `rounds`): adjacent literal appends become one where
nothing else reads the prompt between them; empty appends go; formats and computes of literals
are evaluated; an appended format gives its texts to the prompt, so that prefixes end later;
the text of a literal prompt is a literal; a select of one choice is text; a branch on a literal
is the region it takes, and one between texts appends the text it chooses (`pick_texts.py`);
unused pure ops go, unless evaluating them might raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Block, Lit, Module, Op, Operand, Value
from sglc.ir.signatures import fits
from sglc.ir.types import PROMPT, TEXT, is_text
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import remove, replace, set_ops
from sglc.passes.facts import is_pure, is_total
from sglc.passes.literals import (
    Unknown,
    branch_taken,
    chain_text,
    compute_value,
    format_part,
)
from sglc.passes.pick_texts import has_events, picked

Part = str | tuple[int, str, str]
Result = tuple[Sequence[Op], Sequence[Operand]]  # ops to put in place, and the results' values


@dataclass(frozen=True)
class Fold(Pass):
    """Fold constants.  `rounds`: sweeps over a program at most."""

    name: ClassVar[str] = "fold"
    rounds: int = 16

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        folder = _Folder(context)
        for program in module.programs.values():
            folder.picks = not has_events(program.body)
            for _ in range(self.rounds):
                if not folder.sweep(program.body):
                    break
        return folder.stats


class _Folder:
    def __init__(self, context: PassContext) -> None:
        self.context = context
        self.stats: dict[str, int] = {}
        self.rules: dict[str, Callable[[Op], Result | None]] = {
            "prompt.append": self._append, "prompt.format": self._format,
            "prompt.compute": self._compute, "prompt.text": self._text,
            "prompt.span": self._span, "prompt.select": self._select, "prompt.if": self._branch,
            "prompt.switch": self._branch, "prompt.concat": self._concat,
        }
        self.changed = False
        self.picks = True  # branches between texts may go

    def sweep(self, block: Block) -> bool:
        """One pass over the block and its regions; whether anything changed."""
        outer_changed, self.changed = self.changed, False
        pending = block.ops[::-1]
        out: list[Op] = []
        while pending:
            op = pending.pop()
            rule = self.rules.get(op.name)
            result = rule(op) if rule is not None else None
            if result is None:
                for region in op.regions:
                    self.changed |= self.sweep(region)
                out.append(op)
                continue
            self.changed = True
            new, values = result
            replace(op, values)
            pending.extend(reversed(new))
        if self.changed:
            set_ops(block, out)
        self._drop_unused(block)
        changed, self.changed = self.changed, outer_changed
        return changed

    def _drop_unused(self, block: Block) -> None:
        dead: set[Op] = set()
        for op in reversed(block.ops):
            if (is_pure(op) and all(dead.issuperset(r.uses) for r in op.results)
                    and is_total(op)):
                dead.add(op)
        if dead:
            self._count("unused", len(dead))
            self.changed = True
            remove(block, dead)

    def _count(self, rule: str, n: int = 1) -> None:
        self.stats[rule] = self.stats.get(rule, 0) + n

    def _note(self, rule: str, op: Op, after: object) -> None:
        self._count(rule)
        if self.context.rewrites is not None:
            self.context.record(rule, op.name, after, op.loc)

    # --- rules: None where they do not apply; they may also change the op in place ---------

    def _append(self, op: Op) -> Result | None:
        base, text = op.operands
        if isinstance(text, Value):
            return self._append_format(op, base, text)
        if not text.value:
            self._note("empty", op, "nothing")
            return (), (base,)
        if _append_after(op):
            return None  # the last one of a run takes all their texts, once
        texts = [text.value]
        last = op
        while (before := _append_before(last)) is not None:
            texts.append(before.operands[1].value)  # type: ignore[union-attr]
            last = before
        if len(texts) > 1:
            text = Lit("".join(reversed(texts)))
            op.set_operands((last.operands[0], text))
            op.loc = last.loc or op.loc
            self._count("merge", len(texts) - 2)
            self._note("merge", op, text)
            self.changed = True
        return None

    def _append_format(self, op: Op, base: Operand, text: Value) -> Result | None:
        form = text.op
        if (form is None or form.name != "prompt.format" or len(text.uses) != 1
                or not is_total(form)):
            return None
        parts = form.attrs["parts"]
        if len(parts) < 2 and not _is_plain_text(parts, form.operands):
            return None
        new: list[Op] = []
        for part in parts:
            piece: Operand
            if isinstance(part, str):
                piece = Lit(part)
            elif _is_plain_text((part,), form.operands):
                piece = form.operands[part[0]]
            else:
                single = Op("prompt.format", (form.operands[part[0]],),
                            {"parts": ((0, part[1], part[2]),)}, (TEXT,), (), form.loc)
                new.append(single)
                piece = single.results[0]
            new.append(Op("prompt.append", (base, piece), None, (PROMPT,), (), op.loc))
            base = new[-1].results[0]
        self._note("split-format", op, parts)
        return new, (base,)

    def _format(self, op: Op) -> Result | None:
        parts, operands, changed = _flatten(op)
        if all(isinstance(p, str) for p in parts):
            text = "".join([p for p in parts if isinstance(p, str)])
            self._note("format", op, text)
            return (), (Lit(text),)
        if _is_plain_text(parts, operands) and _fits(op.results[0], operands[0]):
            self._note("format", op, operands[0])
            return (), (operands[0],)
        if changed:
            self.changed = True
            op.attrs["parts"] = tuple(parts)
            op.set_operands(operands)
            self._note("format", op, parts)
        return None

    def _compute(self, op: Op) -> Result | None:
        try:
            value = compute_value(op.attrs["fn"], op.operands, op.results[0].type.name)
        except Unknown:
            return None
        if not _fits(op.results[0], value):
            return None
        self._note("compute", op, value)
        return (), (value,)

    def _text(self, op: Op) -> Result | None:
        try:
            value = Lit(chain_text(op.operands[0]))
        except Unknown:
            return None
        self._note("text", op, value)
        return (), (value,)

    def _span(self, op: Op) -> Result | None:
        try:
            value = Lit(chain_text(op.operands[1], op.operands[0]))
        except Unknown:
            return None
        self._note("text", op, value)
        return (), (value,)

    def _select(self, op: Op) -> Result | None:
        if len(op.operands) != 2 or op.results[2].uses:
            return None
        choice = op.operands[1]
        if isinstance(choice, Value) or not choice.value or not _fits(op.results[1], choice):
            return None
        new = Op("prompt.append", (op.operands[0], choice), None, (PROMPT,), (), op.loc)
        self._note("one-choice", op, choice)
        # The scores are unused; any operand stands in for them.
        return (new,), (new.results[0], choice, choice)

    def _branch(self, op: Op) -> Result | None:
        predicate = op.operands[0]
        if isinstance(predicate, Value):
            found = picked(op) if op.name == "prompt.if" and self.picks else None
            if found is not None:
                self._note("pick", op, f"{len(found[0])} ops")
            return found
        if not self.picks and "event" in op.attrs:
            return None  # a trace that goes on is told which arm it took
        try:
            taken = branch_taken(op.name, [r.label for r in op.regions], predicate)
        except Unknown:
            return None
        region = op.regions[taken]
        for arg, value in zip(region.args, op.operands[1:], strict=True):
            arg.replace_by(value)
        *ops, last = region.ops
        values = last.operands
        self._note("branch", op, region.label or ("then", "else")[taken])
        last.set_operands(())
        region.ops = []
        return ops, values

    def _concat(self, op: Op) -> Result | None:
        parent, child, base = op.operands
        if child is not base and parent is not base:
            return None
        value = parent if child is base else child
        self._note("concat", op, value)
        return (), (value,)


def _append_before(op: Op) -> Op | None:
    """The literal append that `op`, another one, directly follows, if only `op` reads it."""
    base = op.operands[0]
    before = base.op if isinstance(base, Value) else None
    if (before is None or before.name != "prompt.append" or len(before.results[0].uses) != 1
            or before.block is not op.block or isinstance(before.operands[1], Value)):
        return None
    return before


def _append_after(op: Op) -> bool:
    """Whether a literal append directly follows `op`, a literal append, and alone reads it."""
    uses = op.results[0].uses
    return (len(uses) == 1 and uses[0].name == "prompt.append" and uses[0].block is op.block
            and isinstance(uses[0].operands[1], Lit))


def _is_plain_text(parts: Sequence[Part], operands: Sequence[Operand]) -> bool:
    """Whether the format is just one of its operands, a text."""
    if len(parts) != 1 or isinstance(parts[0], str):
        return False
    index, conversion, spec = parts[0]
    return conversion in ("", "s", None) and not spec and is_text(operands[index].type)


def _fits(result: Value, other: Operand) -> bool:
    """Whether `other` may stand for `result`, also where a region hands it on."""
    return fits(other.type, result.type) or not any(u.name == "prompt.yield" for u in result.uses)


def _flatten(op: Op) -> tuple[list[Part], list[Operand], bool]:
    """The op's parts with literals evaluated and nested formats opened, and what they read."""
    changed = False
    parts: list[Part] = []
    operands: list[Operand] = []
    index_of: dict[int, int] = {}

    def add(part: Part, source: Sequence[Operand]) -> None:
        nonlocal changed
        if not isinstance(part, str):
            operand = source[part[0]]
            if isinstance(operand, Lit):
                try:
                    part = format_part(part, source)
                    changed = True
                except Unknown:
                    pass
        if isinstance(part, str):
            if parts and isinstance(parts[-1], str):
                parts[-1] += part
                changed = True
            elif part:
                parts.append(part)
            return
        index, conversion, spec = part
        operand = source[index]
        inner = operand.op if isinstance(operand, Value) else None
        if (inner is not None and inner.name == "prompt.format" and inner.block is op.block
                and len(inner.results[0].uses) == 1 and _is_plain_text((part,), source)):
            changed = True
            for p in inner.attrs["parts"]:
                add(p, inner.operands)
            return
        at = index_of.setdefault(id(operand), len(operands))
        if at == len(operands):
            operands.append(operand)
        parts.append((at, conversion, spec))

    for part in op.attrs["parts"]:
        add(part, op.operands)
    return parts, operands, changed or tuple(operands) != op.operands
