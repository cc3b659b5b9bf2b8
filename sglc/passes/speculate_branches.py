"""What a call's outcome leads to rides along while the model decides.  Preserves text.

Where a select, or a gen of a few possible texts, is followed by constants, `then` lists each such
outcome with what follows it: the texts and control tokens up to the next call or text that is not
known, through the arms that this outcome takes.  The runtime reads them beside the call, in the
same step, where that costs next to nothing (`runtime/rides.py`); the winner's next call then
finds its prompt read, and what the others had is forgotten.  Nothing but KV is made ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.errors import IRError
from sglc.ir.module import Attr, Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.signatures import CHAINS, LOOPS
from sglc.passes.base import Pass, PassContext
from sglc.passes.facts import BRANCHES, is_call, is_finished
from sglc.passes.literals import Unknown, branch_taken, compute_value, format_part
from sglc.passes.lower_select import constant_choices
from sglc.passes.refine_choices import few_texts
from sglc.tokens.tokenizer import Tokenizer

_DEEP = 40  # pure operations on top of one another that are looked through

Pieces = tuple[str | int, ...]
"""Texts, and ids of control tokens."""

Then = tuple[Pieces, ...]
"""Outcomes, each with at least one piece that follows it."""


@dataclass(frozen=True)
class SpeculateBranches(Pass):
    """Note in `then` what follows each outcome of a call; needs a tokenizer.

    max_tokens: of all outcomes of a call together.  max_cases: outcomes of a call.  A call with
    more is left alone.
    """

    name: ClassVar[str] = "speculate-branches"
    max_tokens: int = 1024
    max_cases: int = 16

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        if context.tokenizer is None:
            raise IRError("SGLC203", "the pass speculate-branches needs a tokenizer",
                          fixes=("give a PassContext with a tokenizer", "leave the pass out"))
        stats = {"calls": 0, "cases": 0, "tokens": 0, "left_out": 0}
        for program in module.programs.values():
            if not is_finished(program):
                self._program(program, context, context.tokenizer, stats)
        return stats

    def _program(self, program: Program, context: PassContext, tokenizer: Tokenizer,
                 stats: dict[str, int]) -> None:
        read = read_by_calls(program)
        for op in program.walk():
            if not is_call(op) or op.results[0] not in read:
                continue
            texts = self._outcomes(op, context)
            found = [(text, *_Outcome(op, text, read).pieces())
                     for text in texts[:self.max_cases]]
            then: Then = tuple([row for row in found if len(row) > 1])
            tokens = sum([_count(row[1:], tokenizer) for row in then])
            if not then:
                continue
            if len(texts) > self.max_cases or tokens > self.max_tokens:
                stats["left_out"] += 1
                continue
            op.attrs["then"] = then
            stats["calls"] += 1
            stats["cases"] += len(then)
            stats["tokens"] += tokens
            context.record("ahead", f"{len(texts)} outcomes",
                           f"{len(then)} continued by {tokens} tokens", op.loc)

    def _outcomes(self, op: Op, context: PassContext) -> tuple[str, ...]:
        """The texts that a call can give, if they are known; of a gen, only if they are few."""
        if op.name == "kv.score":
            return tuple(constant_choices(op) or ())
        if op.name != "kv.decode" or op.attrs.get("heal") or op.attrs.get("n") not in (None, 1):
            return ()
        return few_texts(op, self.max_cases, context) or ()


def read_by_calls(program: Program) -> set[Value]:
    """The prompts that a call may continue, with anything between them."""
    read: set[Value] = set()
    for op in reversed(list(program.walk())):
        for i, operand in enumerate(op.operands):
            if not isinstance(operand, Value):
                continue
            block = op.block
            holder = None if block is None else block.parent
            if (is_call(op) and i == 0) or op.name in LOOPS:
                read.add(operand)
            elif op.name in CHAINS:
                if i == 0 and any(r in read for r in op.results):
                    read.add(operand)
            elif op.name in BRANCHES:
                if i and any(region.args[i - 1] in read for region in op.regions):
                    read.add(operand)
            elif op.name == "prompt.yield" and isinstance(holder, Op) and (
                    holder.name in LOOPS or holder.results[i] in read):
                read.add(operand)
    return read


def _count(pieces: Pieces, tokenizer: Tokenizer) -> int:
    return sum([len(tokenizer.encode(p)) if isinstance(p, str) else 1 for p in pieces])


class _Outcome:
    """A program behind a call, given what that gave."""

    def __init__(self, call: Op, text: str, read: set[Value]) -> None:
        self.call = call
        self.read = read
        self.values: dict[Value, Attr] = {call.results[1]: text}

    def pieces(self) -> Pieces:
        """The constants that follow: the longest, where the prompt is continued in several
        ways."""
        found: list[Pieces] = []
        todo: list[tuple[Value, Pieces]] = [(self.call.results[0], ())]
        while todo:
            prompt, pieces = todo.pop()
            for use in dict.fromkeys(prompt.uses):
                reached = self._is_reached(use, prompt)
                grown = self._grown(use, prompt) if reached else []
                todo += [(after, pieces + more) for after, more in grown if after in self.read]
                if reached is not False and not grown and self._continues(use, prompt):
                    found.append(pieces)
        return max(found, key=_length, default=())

    def _grown(self, use: Op, prompt: Value) -> list[tuple[Value, Pieces]]:
        """The prompts that a use makes of one by adding constants (or nothing), and these."""
        if use.name == "kv.special":
            return [(use.results[0], (use.attrs["id"],))]
        if use.name == "kv.extend":
            text = self._text(use.operands[1])
            return [] if text is None else [(use.results[0], (text,))]
        holder = _holder(use)
        if use.name == "prompt.yield" and holder is not None and holder.name in BRANCHES:
            return [(result, ()) for result, operand in zip(
                holder.results, use.operands, strict=True) if operand is prompt]
        if use.name in BRANCHES:
            taken = self._taken(use)
            return [] if taken is None else [(arg, ()) for arg, operand in zip(
                taken.args, use.operands[1:], strict=True) if operand is prompt]
        return []

    def _text(self, ids: Operand) -> str | None:
        """The text that some !ids encode, if it is known."""
        op = ids.op if isinstance(ids, Value) else None
        if op is None:
            return None
        text = op.attrs["text"] if op.name == "kv.ids" else self._known(op.operands[1])
        return text if type(text) is str else None

    def _continues(self, use: Op, prompt: Value) -> bool:
        """Whether a use may go on from the prompt to a call."""
        if use.name in CHAINS:
            return use.operands[0] is prompt and (is_call(use) or use.results[0] in self.read)
        return use.name in BRANCHES or use.name in LOOPS

    def _is_reached(self, use: Op, prompt: Value) -> bool | None:
        """Whether a use of a prompt happens; None where that is not known."""
        home = prompt.owner.block if isinstance(prompt.owner, Op) else prompt.owner
        reached: bool | None = True
        block = use.block
        while block is not home and block is not None and isinstance(block.parent, Op):
            taken = self._taken(block.parent) if block.parent.name in BRANCHES else None
            if taken is None:
                reached = None
            elif taken is not block:
                return False
            block = block.parent.block
        return reached

    def _taken(self, branch: Op) -> Block | None:
        """The arm that a branch takes, if that is known."""
        value = self._known(branch.operands[0])
        if value is None:
            return None
        try:
            at = branch_taken(branch.name, [r.label for r in branch.regions], Lit(value))
        except Unknown:
            return None
        return branch.regions[at]

    def _known(self, operand: Operand, depth: int = 0) -> Attr:
        """The value of an operand, None if that is not known."""
        if isinstance(operand, Lit):
            return operand.value
        if operand not in self.values:
            self.values[operand] = None if depth > _DEEP else self._computed(operand, depth + 1)
        return self.values[operand]

    def _computed(self, value: Value, depth: int) -> Attr:
        op = value.op
        if op is None:
            return None
        if op.name in BRANCHES:
            taken = self._taken(op)
            end = None if taken is None else taken.terminator
            return None if end is None else self._known(end.operands[value.index], depth)
        if op.name not in ("prompt.compute", "prompt.format"):
            return None
        given = [self._known(o, depth) for o in op.operands]
        if any(v is None for v in given):
            return None
        literals = [Lit(v) for v in given]
        try:
            if op.name == "prompt.compute":
                return compute_value(op.attrs["fn"], literals, value.type.name).value
            return "".join([p if isinstance(p, str) else format_part(p, literals)
                            for p in op.attrs["parts"]])
        except Unknown:
            return None


def _holder(op: Op) -> Op | None:
    """The op in whose region another one is."""
    parent = None if op.block is None else op.block.parent
    return parent if isinstance(parent, Op) else None


def _length(pieces: Pieces) -> int:
    return sum([len(p) if isinstance(p, str) else 1 for p in pieces])
