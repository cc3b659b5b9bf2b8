"""What the compiler made of a program, to look at: stages, graph breaks, cost, viewer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglc.errors import Diagnostic
from sglc.ir.module import Module
from sglc.lang.calling import CallSignature, run_options
from sglc.lang.lowering import Lowered
from sglc.lang.state import ProgramState
from sglc.lang.variants import Variant, trace_any_length, trace_variant
from sglc.passes.base import PassContext
from sglc.passes.manager import PassRecord
from sglc.trace.guards import MISSING

if TYPE_CHECKING:
    from sglc.lang.summary import Explanation
    from sglc.plan.figures import Beside, Cost


class Compiled:
    """What the compiler made of a program, to look at and to run."""

    def __init__(self, program: Any, variant: Variant, lowered: Lowered | None,
                 backend: Any = None, level: int | None = None,
                 given: dict[str, Any] | tuple[Any, ...] | None = None) -> None:
        self.program = program
        self.given = given  # the arguments that it was compiled for, as a row of a batch
        self.backend = backend
        self.level = level
        self.variant = variant
        self._lowered = lowered

    @property
    def graph_breaks(self) -> int:
        """How many times the graph breaks; 0 means that the whole program is one plan."""
        return len(self.breaks)

    @property
    def breaks(self) -> list[Diagnostic]:
        """Where the graph breaks: the rest is traced at run time, or all of it runs eagerly."""
        if self.variant.trace is not None:
            return list(self.variant.trace.breaks)
        return [] if self.variant.broken is None else [self.variant.broken]

    @property
    def paths(self) -> int:
        """How many paths through the program were explored."""
        return 0 if self.variant.trace is None else self.variant.trace.paths

    @property
    def assumed(self) -> dict[str, int]:
        """Counts that had to be assumed because no arguments were given."""
        return {} if self.variant.trace is None else dict(self.variant.trace.assumed)

    @property
    def stages(self) -> dict[str, Module]:
        """The module "traced", and after the "prompt", "kv" and "plan" passes; for a backend that
        takes text there are no more than the "prompt" passes."""
        low = self._lowered
        if low is None:
            return {}
        found = {"traced": low.traced, "prompt": low.prompt, "kv": low.kv, "plan": low.plan}
        return {name: module for name, module in found.items() if module is not None}

    @property
    def records(self) -> list[PassRecord]:
        """What each pass did."""
        return [] if self._lowered is None else list(self._lowered.records)

    @property
    def context(self) -> PassContext | None:
        """What the passes knew: tokenizer, template, rows."""
        return None if self._lowered is None else self._lowered.context

    def explain(self) -> Explanation:
        """What was captured, what was not and why, what the passes did, and what they could not
        do; `str` is the text."""
        from sglc.lang.summary import explanation

        return explanation(self)

    def cost(self, batch: Iterable[Any], *, backend: Any = None,
             after: Sequence[Any] | None = None, at_once: int | None = None,
             lengths: Mapping[str, float] | None = None, **options: Any) -> Cost:
        """What `run_batch(batch, **options)` will cost from an empty cache; `str` is a table.

        Prefill tokens, decode tokens, the KV peak, model steps and so on, each exact (`=`), a
        bound (`<=`) or an estimate (`~`).  See `plan/figures.py`; `beside` puts it beside what
        the run did.

        backend: what it will run on (by default the default backend, else what this was compiled
            with, of no known memory); its time is estimated once it was calibrated
            (`backend.calibrate()`).
        after: the states of the run: counted again with what its calls gave.
        at_once: how many rows run at a time (all).
        lengths: how many tokens gens are expected to write, by name.
        """
        from sglc.lang.costs import batch_cost

        return batch_cost(self, batch, backend, after, at_once, lengths, options)

    def viz(self, path: str | Path | None = None, *, batch: Iterable[Any] | None = None,
            backend: Any = None, after: Sequence[Any] | None = None,
            actual: Beside | None = None, samples: Sequence[Any] = (), **options: Any) -> Path:
        """Write the viewer to `path` (by default the program's name, `.html`), and return that:
        one file with the graph, source and IR, passes, plan, grammar and cost, which needs no
        network.

        batch, backend, after, options: as for `cost`; the plan and the cost are of this batch,
            by default of the arguments that it was compiled for.
        actual, samples: what a run of it did (`Cost.beside`, `viz/live.py`).
        """
        from sglc.lang.viewing import own_arguments, subject, write_page

        return write_page(subject(
            self, batch=own_arguments(self) if batch is None else batch, backend=backend,
            after=after, options=options, actual=actual, samples=samples), path)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """How a notebook shows it."""
        from sglc.lang.viewing import subject
        from sglc.viz.notebook import bundle

        return bundle(subject(self), str(self))

    def __str__(self) -> str:
        return self.explain().short()

    def run(self, *args: Any, **kwargs: Any) -> ProgramState:
        """The program's `run`."""
        return self.program.run(*args, **kwargs)  # type: ignore[no-any-return]

    def run_batch(self, *args: Any, **kwargs: Any) -> Any:
        """The program's `run_batch`."""
        return self.program.run_batch(*args, **kwargs)


def compile_program(program: Any, args: tuple, kwargs: Mapping[str, Any], backend: Any,
                    level: int, lengths: Mapping[str, int] | None = None,
                    any_length: bool = False, **manager: Any) -> Compiled:
    """Compile for given arguments, or with unknown ones where none are given.

    lengths: the lengths and counts to assume for unknown arguments, by name (2 for others).
    any_length: the form that stands for lists of any length, where there is one.
    """
    signature: CallSignature = program.signature
    values, sampling, _ = signature.split(kwargs, batch=False)
    options = run_options(sampling)
    given = None if args and values else tuple(args) or dict(values) or None
    if args or values:
        bound = signature.bind(args, values)
        variant = program.compiler().variant(bound)
    else:
        bound = unknown_arguments(signature)
        variant = trace_variant(program, bound, lengths=lengths)
    if any_length:
        variant = trace_any_length(program, bound) or variant
    if variant.trace is None:
        if program.settings.fullgraph:
            program.compiler().broken(variant)
        return Compiled(program, variant, None, backend, level, given)
    if backend is None:
        from sglc.tokens.bytes import ByteTokenizer
        from sglc.tokens.templates import for_tokenizer

        tokenizer: Any = ByteTokenizer()
        template: Any = for_tokenizer(tokenizer)
    else:
        tokenizer, template = backend.tokenizer, backend.template
    lowered = program.compiler().lower(variant, tokenizer, template, options, 1, level, **manager)
    return Compiled(program, variant, lowered, backend, level, given)


def unknown_arguments(signature: CallSignature) -> dict[str, Any]:
    """Every parameter without a default as MISSING; bound ones and defaults as they are."""
    out: dict[str, Any] = dict(signature.bound)
    for p in signature.signature.parameters.values():
        if p.name in out:
            continue
        if p.kind is p.VAR_POSITIONAL:
            out["*" + p.name] = ()
        elif p.kind is not p.VAR_KEYWORD:
            out[p.name] = MISSING if p.default is p.empty else p.default
    return out
