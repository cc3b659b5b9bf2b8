"""Calls that must give the same are made once.  Preserves text.

Equal are: gens on the same prompt with the same parameters whose outcome does not depend on their
path (temperature 0, or a seed of their own), selects on the same prompt among the same choices,
and host calls of functions declared pure with the same arguments.  Prompts behind merged calls are
equal too, so whole chains become one.  Results of pure calls stay apart where the user's Python
is handed one of them: it could change it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Lit, Module, Op, Operand
from sglc.ir.signatures import offsets
from sglc.passes.base import Pass, PassContext
from sglc.passes.facts import is_finished
from sglc.passes.hoist_prefixes import Key, Numbering

_OWN = ("name", "path", "offset")  # attributes that say which call it is, not what it does


@dataclass(frozen=True)
class MergeDuplicates(Pass):
    """Make equal deterministic calls once."""

    name: ClassVar[str] = "merge-duplicates"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"calls": 0, "host_calls": 0}
        for program in module.programs.values():
            if not is_finished(program):
                _Calls(context, stats).visit(program.body)
        return stats


class _Calls(Numbering):
    """Numbers calls besides pure ops."""

    def __init__(self, context: PassContext, stats: dict[str, int]) -> None:
        super().__init__(context, 0, {"merged": 0, "hoisted": 0, "moved": 0, "tokens": 0})
        self.calls = stats

    def key(self, op: Op) -> Key | None:
        if op.name in ("prompt.gen", "prompt.select"):
            if op.name == "prompt.gen" and not self._is_certain(op):
                return None
            operands = op.operands[: len(op.operands) - len(offsets(op))]
            attrs = sorted((k, repr(v)) for k, v in op.attrs.items() if k not in _OWN)
            return (op.name, *map(_operand, operands), *attrs)
        if op.name == "prompt.host" and op.attrs.get("pure") and "call" in op.attrs:
            if any(u.name == "prompt.host" and not (u.attrs.get("pure") or u.attrs.get("reads"))
                   for r in op.results for u in r.uses):
                return None
            arguments = op.operands[: op.attrs.get("args", len(op.operands))]
            return (op.name, op.attrs["call"], *map(_operand, arguments))
        return super().key(op)

    def _is_certain(self, gen: Op) -> bool:
        """Whether the gen's outcome is a function of its prompt and parameters."""
        temperature = gen.attrs.get("temperature", self.context.temperature)
        return temperature == 0 or gen.attrs.get("seed") is not None

    def merge(self, op: Op, known: Op) -> None:
        if op.name == "prompt.host":
            self.calls["host_calls"] += 1
        elif op.name in ("prompt.gen", "prompt.select"):
            self.calls["calls"] += 1
        super().merge(op, known)


def _operand(operand: Operand) -> Hashable:
    return repr(operand.value) if isinstance(operand, Lit) else operand
