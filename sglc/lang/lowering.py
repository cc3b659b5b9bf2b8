"""A traced module through the passes, as steps for a backend: kept, and laid out for arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sglc.collector import collection_paused
from sglc.ir.module import Module, Program
from sglc.passes.base import PassContext
from sglc.passes.manager import PassManager, PassRecord
from sglc.passes.pipelines import pipeline
from sglc.runtime.plan_code import PlanCode
from sglc.runtime.plan_compiler import compile_plan
from sglc.runtime.rounds import Rounds, has_loops

MAX_CODES = 512  # layouts kept of a program with loops of run-time length


@dataclass(slots=True)
class Lowered:
    """A variant bound to a tokenizer, a template and run options, for a number of rows."""

    traced: Module
    kv: Module | None  # None, as the plan, where the model takes text
    plan: Module | None
    prompt: Module
    records: list[PassRecord]
    context: PassContext
    loops: bool = False  # some of run-time length: the steps depend on these lengths
    _codes: dict[tuple[int, ...], PlanCode] = field(default_factory=dict)

    def rounds(self, arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """How often the loops of the program run: rows of the same numbers share their steps."""
        return Rounds(self.program, arguments).counts() if self.loops else ()

    @property
    def program(self) -> Program:
        return next(iter((self.plan or self.prompt).programs.values()))

    def code(self, arguments: Mapping[str, Any]) -> PlanCode:
        """The steps for given arguments (by IR name)."""
        rounds = self.rounds(arguments)
        found = self._codes.get(rounds)
        if found is None:
            found = compile_plan(self.program, self.context.tokenizer, arguments,
                                 self.context.template)
            if len(self._codes) >= MAX_CODES:
                self._codes.pop(next(iter(self._codes)))
            self._codes[rounds] = found
        return found


@collection_paused()
def lower(module: Module, context: PassContext, level: int, *,
          outputs: tuple[str, ...] | None = None, without: tuple[str, ...] = (),
          **manager: Any) -> Lowered:
    """Run the pipeline in its three stages: prompt, kv, plan; without a tokenizer, the first.

    without: passes to leave out.
    """
    model_free = context.tokenizer is None
    names = [n for n in pipeline(level, model_free).split(",") if n not in without]
    if outputs is not None:
        keep = ",".join(outputs)
        names = [f'eliminate-dead{{outputs="{keep}"}}' if n == "eliminate-dead" else n
                 for n in names]
    stages = (names,)
    if not model_free:
        at = names.index("tokenize")
        stages = (names[:at], names[at:-1], names[-1:])
    records: list[PassRecord] = []
    modules = []
    current = module
    for stage in stages:
        pm = PassManager(",".join(stage), level=level, verified=bool(modules), **manager)
        current = pm.run(current, context)
        records.extend(pm.records)
        modules.append(current)
    prompt, kv, plan = (modules[0], None, None) if model_free else modules
    program = next(iter(modules[-1].programs.values()))
    return Lowered(module, kv, plan, prompt, records, context, has_loops(program))


def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their IR name (`*args` parameters lose the star)."""
    return {name.lstrip("*"): value for name, value in values.items()}
