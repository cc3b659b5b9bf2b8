"""What a batch of a compiled program will cost: its rows, by the variants that run them, given to
the cost model (`plan/cost.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sglc.errors import CapabilityError
from sglc.lang.calling import run_options
from sglc.lang.compiled_state import CompiledState
from sglc.plan.cost import Machine, Outlook, Row, cost, outlook
from sglc.plan.draft_calls import Setting, Told
from sglc.plan.figures import Cost
from sglc.runtime.calls import Outcome
from sglc.runtime.run_outputs import Failed


def batch_cost(compiled: Any, batch: Iterable[Any], backend: Any, after: Sequence[Any] | None,
               at_once: int | None, lengths: Mapping[str, float] | None,
               options: Mapping[str, Any]) -> Cost:
    """See `Compiled.cost`."""
    given = _given(compiled, batch, backend, after, lengths, options)
    return cost(given.rows, given.setting, given.machine, at_once=at_once, unknown=given.unknown)


def batch_outlook(compiled: Any, batch: Iterable[Any], backend: Any = None,
                  after: Sequence[Any] | None = None,
                  options: Mapping[str, Any] | None = None) -> tuple[Outlook, Machine]:
    """The cost of a batch with the simulated run behind it, and the machine it is for; arguments
    as for `Compiled.cost`."""
    given = _given(compiled, batch, backend, after, None, options or {})
    machine = given.machine or Machine()
    return outlook(given.rows, given.setting, machine, unknown=given.unknown), machine


@dataclass(frozen=True, slots=True)
class _Given:
    """What the cost model is given."""

    rows: list[Row]
    setting: Setting
    machine: Machine | None
    unknown: int


def _given(compiled: Any, batch: Iterable[Any], backend: Any, after: Sequence[Any] | None,
           lengths: Mapping[str, float] | None, options: Mapping[str, Any]) -> _Given:
    program = compiled.program
    extra, sampling, _ = program.signature.split(dict(options), batch=True)
    if extra:
        raise program.signature.error(f"cost() got unknown options: {', '.join(extra)}")
    run = run_options(sampling)
    rows = program.signature.rows(batch)
    backend = backend or compiled.backend
    if getattr(backend, "tokenizer", None) is not None:
        tokenizer, template = backend.tokenizer, backend.template
    else:
        from sglc.tokens.bytes import ByteTokenizer
        from sglc.tokens.templates import for_tokenizer

        context = compiled.context
        tokenizer = context.tokenizer if context is not None else ByteTokenizer()
        template = context.template if context is not None else for_tokenizer(tokenizer)
    if tokenizer is None:
        raise CapabilityError("SGLC012", "costs are counted in tokens, and a remote API has none",
                              fixes=("compile for a backend with a tokenizer",))
    machine: Machine | None = backend.machine() if hasattr(backend, "machine") else None
    cache = program.compiler()
    checked: set[Any] = set()
    variants = [cache.variant(values, checked) for values in rows]
    counts: dict[Any, int] = {}
    for v in variants:
        counts[v] = counts.get(v, 0) + 1
    given: list[Row] = []
    unknown = 0
    for i, (v, values) in enumerate(zip(variants, rows, strict=True)):
        told = None if after is None else outcomes(after[i])
        if v.trace is None or (after is not None and told is None):
            unknown += 1
            continue
        low = cache.lower(v, tokenizer, template, run, counts[v], compiled.level)
        arguments = {name.lstrip("*"): value for name, value in values.items()}
        given.append(Row(low.program, arguments, told))
    setting = Setting(tokenizer, template, run, dict(lengths or {}),
                      program.settings.batch_texts(rows))
    return _Given(given, setting, machine, unknown)


def outcomes(state: Any) -> dict[Any, Told] | None:
    """What the calls of a finished run gave, by their keys; None for a run without a plan, or one
    that went on after a break."""
    if not isinstance(state, CompiledState):
        return None
    instance = state._instance
    state.error()  # waits for the end
    if instance.job.events:
        return None
    told: dict[Any, Told] = {}
    for key, value in instance.log.given.items():
        if isinstance(value, Outcome):
            if value.error is None:
                told[key] = _told(value)
        elif not isinstance(value, Failed):
            told[key] = Told(value)
    return told


def _told(outcome: Outcome) -> Told:
    if outcome.ids is None:
        return Told(outcome.value, text=outcome.text)
    metas = outcome.meta if isinstance(outcome.meta, list) else [outcome.meta]
    return Told(outcome.value, outcome.ids, outcome.text, outcome.leftover,
                tuple([m["completion_tokens"] for m in metas]))
