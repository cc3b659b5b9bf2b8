"""Compiled programs: variants under guards, lowering for a backend, runs and batches of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglc.config import RunOptions
from sglc.errors import Diagnostic, SglcWarning, TailNotTraced, TraceError
from sglc.ir.module import Module, Program
from sglc.lang import eager_run
from sglc.lang.calling import CallSignature, Controls
from sglc.lang.collector import collection_paused
from sglc.lang.compiled_state import CompiledState, open_stream
from sglc.lang.host_threads import HostPool, HostQueue
from sglc.lang.progress import Progress
from sglc.lang.state import ProgramState
from sglc.lang.variants import Variant, Variants, trace_any_length, trace_variant
from sglc.passes.base import PassContext
from sglc.passes.manager import PassManager, PassRecord
from sglc.passes.pipelines import pipeline
from sglc.runtime.dispatch import Dispatcher
from sglc.runtime.executor import Instance, Job
from sglc.runtime.plan_code import PlanCode, compile_plan
from sglc.runtime.rounds import Rounds, has_loops
from sglc.trace.guards import MISSING, snapshot

if TYPE_CHECKING:
    from sglc.lang.summary import Explanation
    from sglc.plan.figures import Beside, Cost

MAX_TAILS = 256  # continuations kept for one variant
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


class VariantCache:
    """The compiled variants of one program."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self._variants = Variants(program)
        self._lock = threading.RLock()

    def variant(self, values: Mapping[str, Any], checked: set[Variant] | None = None) -> Variant:
        """The variant for these arguments, traced now if there is none.

        checked: variants whose outside facts were checked in this batch already.
        """
        with self._lock:
            return self._variants.find(values, set() if checked is None else checked)

    def broken(self, variant: Variant) -> bool:
        """Whether the variant must run eagerly; says so once, or raises with `fullgraph`."""
        if variant.trace is not None:
            if self.program.settings.fullgraph and variant.trace.breaks:
                b = variant.trace.breaks[0]
                raise TraceError(b.code, b.what, place=b.place, why=b.why, fixes=b.fixes)
            return False
        d = variant.broken
        assert d is not None
        if variant.raises:
            return True  # the eager interpreter raises the error where it belongs
        if self.program.settings.fullgraph:
            raise TraceError(d.code, d.what, place=d.place, why=d.why, fixes=d.fixes)
        self.program.warn_once(SglcWarning(d.code, d.what, place=d.place, why=d.why,
                                           effect=d.effect, fixes=d.fixes))
        return True

    def tail(self, variant: Variant, values: Mapping[str, Any], events: Sequence[Any]) -> Variant:
        """The variant that goes on after a break, for the outcomes of the events so far."""
        try:
            key = tuple(snapshot(e) for e in events)
        except TypeError:
            key = None  # not plain data: traced for this run alone
        with self._lock:
            found = None if key is None else variant.tails.get(key)
            if found is None:
                found = trace_variant(self.program, values, events, variant.outside)
                if key is not None and len(variant.tails) < MAX_TAILS:
                    variant.tails[key] = found
            return found

    # -- running --------------------------------------------------------------------------
    def start(self, backend: Any, values: dict[str, Any], options: RunOptions, seed: int,
              stream: bool) -> CompiledState | None:
        """Start one run; None if it must run eagerly.

        Host calls run on this thread, and the run comes back when they are through; with
        `stream` they have a thread of their own.
        """
        variant = self.variant(values)
        if self.broken(variant):
            return None
        space = backend.new_space()
        hosts = HostQueue()
        batch = self.program.settings.batch_texts([values])
        plan = dispatcher(backend)
        job = self.job(variant, values, backend, options, seed, 1, space, hosts.put, batch, plan)
        assert variant.trace is not None

        def on_end(instance: Instance) -> None:
            backend.drop_space(space)
            hosts.close()

        instance = Instance(job, 0, arguments(values), on_end)
        sinks = None
        if stream:
            instance.stream, sinks = open_stream(job, variant.trace.names, instance.condition)
        state = CompiledState(instance, sinks)
        (plan or job).start_all([instance])
        if job.code.chained:
            if stream:
                threading.Thread(target=hosts.drain, name="sglc-host", daemon=True).start()
            else:
                try:
                    hosts.drain()
                except BaseException:
                    instance.cancel(eager_run.cancelled_error())
                    hosts.drain_quietly()
                    raise
                try:
                    instance.wait_body()
                except TailNotTraced as e:
                    if not self.can_restart(instance, e):
                        raise
                    return None
        return state

    def can_restart(self, instance: Instance, error: TailNotTraced) -> bool:
        """Whether a run that got stuck after a break can begin again in the eager interpreter:
        its gens give the same again, and nothing else has happened.  Says so."""
        if instance.called or self.program.settings.fullgraph:
            return False
        instance.cancel(eager_run.cancelled_error())
        d = error.diagnostic
        self.program.warn_once(SglcWarning(
            d.code, d.what, place=d.place, why=d.why, fixes=d.fixes,
            effect="the program runs in the eager interpreter"))
        return True

    def run_batch(self, backend: Any, rows: list[dict[str, Any]], options: RunOptions, seed: int,
                  first_row: int, control: Controls) -> list[ProgramState]:
        """All rows, compiled where possible, in order; host calls of rows run concurrently."""
        checked: set[Variant] = set()
        numbers = control.row_numbers or range(first_row, first_row + len(rows))
        on_row = control.on_row
        variants = [self.variant(values, checked) for values in rows]
        counts: dict[Variant, int] = {}
        for v in variants:
            counts[v] = counts.get(v, 0) + 1
        eager = [i for i, v in enumerate(variants) if self.broken(v)]
        space = backend.new_space()
        pool = HostPool(eager_run.thread_count(control.num_threads, len(rows)))
        batch = self.program.settings.batch_texts(rows)
        lowered = {v: self.lower(v, backend.tokenizer, backend.template, options, n)
                   for v, n in counts.items() if v.trace is not None}
        plan = dispatcher(backend)
        jobs: dict[Any, Job] = {}  # by variant and numbers of rounds
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        states: list[Any] = [None] * len(rows)
        by_row: list[Any] = [None] * len(rows)
        stuck: list[int] = []
        instances: dict[Any, list[Instance]] = {}
        for i, (v, values) in enumerate(zip(variants, rows, strict=True)):
            if v.trace is None:
                continue
            given = arguments(values)
            key = (v, lowered[v].rounds(given))
            if key not in jobs:
                jobs[key] = self.job(v, values, backend, options, seed, counts[v], space,
                                     pool.put, batch, plan)
                instances[key] = []
            instance = Instance(jobs[key], numbers[i], given, lambda _, i=i: ended.put(i))
            instances[key].append(instance)
            by_row[i] = instance
            states[i] = CompiledState(instance)
        bar = Progress(len(rows), control.progress_bar)
        try:
            if plan is not None:
                plan.start_all(sorted([i for group in instances.values() for i in group],
                                      key=lambda i: i.row))
            else:
                for key, job in jobs.items():
                    job.start_all(instances[key])
            for _ in range(len(rows) - len(eager)):
                i = ended.get()
                bar.step()
                if on_row is not None and not isinstance(by_row[i].error, TailNotTraced):
                    on_row(i, states[i])
        except BaseException as why:
            error = eager_run.cancelled_error()
            for group in instances.values():
                for instance in group:
                    instance.cancel(error)  # one that has not started ends at once
            if not isinstance(why, KeyboardInterrupt):
                raise
            bar.interrupted()
            eager, stuck = [], []
        else:
            stuck = [i for i, instance in enumerate(by_row) if instance is not None
                     and isinstance(instance.error, TailNotTraced)
                     and self.can_restart(instance, instance.error)]
            for i, instance in enumerate(by_row):  # what got stuck for good
                if on_row is not None and i not in stuck and isinstance(
                        getattr(instance, "error", None), TailNotTraced):
                    on_row(i, states[i])
        finally:
            bar.close()
            pool.close()
            backend.drop_space(space)
        eager = sorted([*eager, *stuck])
        if eager:
            done = eager_run.run_batch(
                self.program.signature, [rows[i] for i in eager], backend, options, seed, 0,
                num_threads=control.num_threads, progress=control.progress_bar,
                row_numbers=[numbers[i] for i in eager], batch=batch,
                on_row=None if on_row is None else lambda j, state: on_row(eager[j], state))
            for i, state in zip(eager, done, strict=True):
                states[i] = state
        return states

    # -- lowering -------------------------------------------------------------------------
    def job(self, variant: Variant, given: Mapping[str, Any], backend: Any,
            options: RunOptions, seed: int, rows: int,
            space: int | None, run_host: Callable[[Callable[[], None]], None],
            batch: Mapping[str, int] | None = None, plan: Dispatcher | None = None,
            events: tuple[Any, ...] = ()) -> Job:
        """A variant ready to run, with the way on from its breaks."""
        low = self.lower(variant, backend.tokenizer, backend.template, options, rows)
        assert variant.trace is not None

        def resume(values: Mapping[str, Any], events: Sequence[Any]) -> Job:
            named = dict(zip(starred, values.values(), strict=True))
            tail = self.tail(variant, named, events)
            if tail.trace is None:
                d = tail.broken
                assert d is not None
                raise TailNotTraced(
                    d.code, d.what, place=d.place, why=d.why, fixes=d.fixes,
                    effect="the run ends here: its host calls cannot be repeated in the eager "
                           "interpreter")
            return self.job(tail, named, backend, options, seed, rows, space, run_host, batch,
                            plan, tuple(events))

        starred = [p.name for p in next(iter(variant.trace.module.programs.values())).args]
        starred = self.program.signature.starred(starred)
        return Job(low.code(arguments(given)), backend, options, seed, space,
                   variant.trace.calls, run_host, resume, variant.trace.names, events, batch,
                   plan)

    def lower(self, variant: Variant, tokenizer: Any, template: Any, options: RunOptions,
              rows: int, level: int | None = None, **manager: Any) -> Lowered:
        """The variant through the pass pipeline, as steps; kept for the same conditions."""
        assert variant.trace is not None
        level = self.program.settings.level if level is None else level
        may_stop = bool(options.stop or options.stop_regex or template.stop
                        or options.stop_token_ids or options.n != 1 or options.heal)
        greedy = 0.0 if options.temperature == 0 else None
        key = (tokenizer, template, may_stop, options.max_tokens, greedy, rows, level)
        with self._lock:
            found = variant.lowered.get(key)
            if found is None or manager:
                context = PassContext(tokenizer, template, rows, may_stop, options.max_tokens,
                                      temperature=greedy)
                settings = self.program.settings
                found = lower(variant.trace.module, context, level, outputs=settings.outputs,
                              without=settings.without, **manager)
                if not manager:
                    variant.lowered[key] = found
            return found


def dispatcher(backend: Any) -> Dispatcher | None:
    """What plans the batches of a backend, None if it takes no plans."""
    memory = getattr(backend, "plan_memory", None)
    return None if memory is None else Dispatcher(backend, memory)


def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their IR name (`*args` parameters lose the star)."""
    return {name.lstrip("*"): value for name, value in values.items()}


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


class Compiled:
    """What the compiler made of a program, to look at and to run."""

    def __init__(self, program: Any, variant: Variant, lowered: Lowered | None,
                 backend: Any = None, level: int | None = None) -> None:
        self.program = program
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

        batch, backend, after, options: as for `cost`; the plan and the cost are of this batch.
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
    from sglc.lang.calling import run_options

    options = run_options(sampling)
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
        return Compiled(program, variant, None, backend, level)
    if backend is None:
        from sglc.tokens.bytes import ByteTokenizer
        from sglc.tokens.templates import for_tokenizer

        tokenizer: Any = ByteTokenizer()
        template: Any = for_tokenizer(tokenizer)
    else:
        tokenizer, template = backend.tokenizer, backend.template
    lowered = program.compiler().lower(variant, tokenizer, template, options, 1, level, **manager)
    return Compiled(program, variant, lowered, backend, level)


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
