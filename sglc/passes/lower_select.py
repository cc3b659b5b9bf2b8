"""Constant choices become one trie of token ids, scored in one batched step.  Preserves text.

Where the open text before a select is known, each choice is encoded here, in its context:
`after` is that text (`first`: it opens the prompt), `shared` the ids that every choice and the
plain prompt have behind the last border or stable cut, `ids` those that each choice goes on
with, from where they differ; `trie` is how many tokens scoring must read.  Other constant choices
are encoded at run time, once for each text that comes before them.  The engine takes a select
as one request either way: a prefix of several choices is computed once, and no score depends on
another choice, so the decision is that of scoring one by one.  What follows each choice rides
along: see `speculate_branches.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.errors import IRError
from sglc.ir.module import Lit, Module, Op, Operand, Program, Value
from sglc.passes.base import Pass, PassContext
from sglc.passes.facts import is_finished
from sglc.tokens.branches import branches


@dataclass(frozen=True)
class LowerSelect(Pass):
    """Encode the choices of `kv.score`; needs a tokenizer.

    max_choices: of selects that are encoded ahead of time.
    """

    name: ClassVar[str] = "lower-select"
    max_choices: int = 4096

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        if context.tokenizer is None:
            raise IRError("SGLC203", "the pass lower-select needs a tokenizer",
                          fixes=("give a PassContext with a tokenizer", "leave the pass out"))
        stats = {"selects": 0, "tries": 0, "choices": 0, "tokens": 0}
        for program in module.programs.values():
            if not is_finished(program):
                self._program(program, context, stats)
        return stats

    def _program(self, program: Program, context: PassContext, stats: dict[str, int]) -> None:
        assert context.tokenizer is not None
        for op in program.walk():
            if op.name != "kv.score":
                continue
            stats["selects"] += 1
            choices = constant_choices(op)
            tail = open_tail(op.operands[0], context.may_stop)
            if choices is None or tail is None or len(choices) > self.max_choices:
                continue
            found = branches(context.tokenizer, choices, *tail)
            op.attrs["after"], op.attrs["trie"] = tail[0], found.read
            if tail[1]:
                op.attrs["first"] = True
            op.attrs["shared"] = tuple(found.shared)
            op.attrs["ids"] = tuple([tuple(row) for row in found.rows])
            stats["tries"] += 1
            stats["choices"] += len(choices)
            stats["tokens"] += found.read
            context.record("trie", f"{len(choices)} choices, "
                           f"{sum(map(len, found.rows))} tokens", f"{found.read} to read", op.loc)


def constant_choices(score: Op) -> list[str] | None:
    """The texts to choose from, if they are all constant."""
    operands = score.operands[1:len(score.operands) - len(score.attrs.get("offset", ()))]
    found = [o.value for o in operands if isinstance(o, Lit)]
    return found if len(found) == len(operands) else None


def open_tail(prompt: Operand, may_stop: bool) -> tuple[str, bool] | None:
    """The text of a prompt behind its last border or stable cut, and whether that opens the
    prompt; None if it is not known.  `may_stop` as in `PassContext`."""
    op = prompt.op if isinstance(prompt, Value) else None
    if op is None:
        return None
    if op.name == "kv.root":
        return "", True
    if op.name == "kv.special":
        # BOS is not doubled on an empty prompt.
        before = op.operands[0].op if isinstance(op.operands[0], Value) else None
        return None if before is None or before.name == "kv.root" else ("", False)
    if op.name == "kv.image":
        return "", False
    if op.name == "kv.decode":
        stops = may_stop or any(op.attrs.get(k) for k in ("stop", "stop_regex", "dtype"))
        return None if stops else ("", False)
    piece = op.operands[1].op if op.name == "kv.extend" and isinstance(
        op.operands[1], Value) else None
    if piece is None or piece.name != "kv.ids":
        return None
    if piece.attrs["ids"]:
        return piece.attrs["held"], False
    before_it = open_tail(op.operands[0], may_stop)
    return None if before_it is None else (piece.attrs["held"], before_it[1])
