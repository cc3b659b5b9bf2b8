"""Constraints become automata at compile time.  Preserves text: it only adds what is known.

Each constrained generation gets `states` and `classes` (of characters) of its automaton, `longest`
(bytes of its longest text, where that is bounded), `most_tokens` (how many tokens that text is at
most) and `forced` (ids that every such text begins with: a generation is a run of its own, so they
do not depend on the prompt).  What is compiled is what the run uses; nothing is compiled twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Module, Op
from sglc.passes.base import Pass, PassContext
from sglc.passes.constraints import GENS, compiled
from sglc.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class LowerRegex(Pass):
    """Compile constraints, and note what they say; nothing without a tokenizer."""

    name: ClassVar[str] = "lower-regex"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"constraints": 0, "states": 0, "bounded": 0, "forced_tokens": 0}
        if context.tokenizer is None:
            return stats
        for program in module.programs.values():
            for op in program.walk():
                if op.name in GENS and "states" not in op.attrs:
                    _lower(op, context.tokenizer, context, stats)
        return stats


def _lower(op: Op, tokenizer: Tokenizer, context: PassContext, stats: dict[str, int]) -> None:
    constraint = compiled(op, tokenizer)
    if constraint is None:
        return
    from sglc.grammar.canonical import Canonical
    from sglc.grammar.fsm import FsmConstraint

    stats["constraints"] += 1
    known: dict[str, object] = {}
    if isinstance(constraint, FsmConstraint):
        automaton = constraint.automaton
        known["states"] = len(automaton.accepting)
        known["classes"] = automaton.atoms.count
        stats["states"] += len(automaton.accepting)
    # A held-back tail of the prompt would be part of the text.
    if not op.attrs.get("heal"):
        forced = Canonical.of(tokenizer).first(constraint)
        spelled = sum(len(tokenizer.byte_table[i]) for i in forced)
        longest = constraint.max_tokens()
        if longest is not None:
            known["longest"] = longest
            known["most_tokens"] = longest - spelled + len(forced)
            stats["bounded"] += 1
        if forced:
            known["forced"] = forced
            stats["forced_tokens"] += len(forced)
    op.attrs.update(known)
    if context.rewrites is not None:
        said = ", ".join(f"{k} {v}" for k, v in known.items() if k != "forced")
        context.record("compile", op.name, said or "llguidance", op.loc)
