"""Compiled programs: variants under guards, lowering for a backend, runs and batches of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sglc.config import RunOptions
from sglc.errors import Diagnostic, SglcWarning, TraceError
from sglc.ir.module import Module
from sglc.lang import eager_run
from sglc.lang.calling import CallSignature, Controls
from sglc.lang.compiled_state import CompiledState, open_stream
from sglc.lang.host_threads import HostPool, HostQueue
from sglc.lang.progress import Progress
from sglc.lang.state import ProgramState
from sglc.passes.base import PassContext
from sglc.passes.manager import PassManager, PassRecord
from sglc.passes.pipelines import pipeline
from sglc.runtime.executor import Instance, Job
from sglc.runtime.plan_code import PlanCode, compile_plan
from sglc.trace.breaks import GraphBreak
from sglc.trace.guards import MISSING, shape, snapshot
from sglc.trace.tracer import Trace, Tracer

if TYPE_CHECKING:
    from sglc.lang.summary import Explanation

MAX_VARIANTS = 64  # of one shape of arguments; more run in the eager interpreter
MAX_TAILS = 256  # continuations kept for one variant


@dataclass(slots=True)
class Lowered:
    """A variant bound to a tokenizer, a template and run options, for a number of rows."""

    traced: Module
    kv: Module
    plan: Module
    prompt: Module
    records: list[PassRecord]
    code: PlanCode
    context: PassContext


@dataclass(slots=True, eq=False)
class Variant:
    """One traced form of a program (or the reason there is none), and where it applies."""

    trace: Trace | None
    guards: tuple[Any, ...]
    outside: tuple[Any, ...]
    broken: Diagnostic | None = None
    raises: bool = False  # broken because the program itself raises an error there
    lowered: dict[Any, Lowered] = field(default_factory=dict)
    tails: dict[Any, Variant] = field(default_factory=dict)  # by the events they go on after

    def holds(self, values: Mapping[str, Any]) -> bool:
        return all(g.holds(values) for g in self.guards)

    def current(self) -> bool:
        return all(g.holds() for g in self.outside)


class VariantCache:
    """The compiled variants of one program."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self._variants: dict[Any, list[Variant]] = {}
        self._lock = threading.RLock()

    # -- finding --------------------------------------------------------------------------
    def variant(self, values: Mapping[str, Any], checked: set[Variant] | None = None) -> Variant:
        """The variant for these arguments, traced now if there is none.

        checked: variants whose outside facts were checked in this batch already.
        """
        key = tuple(shape(v) for v in values.values())
        checked = set() if checked is None else checked
        with self._lock:
            variants = self._variants.setdefault(key, [])
            for variant in list(variants):
                if variant not in checked:
                    if not variant.current():
                        variants.remove(variant)
                        continue
                    checked.add(variant)
                if variant.holds(values):
                    return variant
            if len(variants) >= MAX_VARIANTS:
                return Variant(None, (), (), Diagnostic(
                    "SGLC115", f"{self.program.name} has more than {MAX_VARIANTS} variants for "
                    "one shape of arguments", effect="further ones run in the eager interpreter"))
            variant = trace_variant(self.program, values)
            variants.append(variant)
            checked.add(variant)
            return variant

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
        job = self.job(variant, backend, options, seed, 1, space, hosts.put)
        assert variant.trace is not None

        def on_end(instance: Instance) -> None:
            backend.drop_space(space)
            hosts.close()

        instance = Instance(job, 0, arguments(values), on_end)
        sinks = None
        if stream:
            instance.stream, sinks = open_stream(job, variant.trace.names, instance.condition)
        state = CompiledState(instance, sinks)
        instance.start()
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
                instance.wait_body()
        return state

    def run_batch(self, backend: Any, rows: list[dict[str, Any]], options: RunOptions, seed: int,
                  first_row: int, control: Controls) -> list[ProgramState]:
        """All rows, compiled where possible, in order; host calls of rows run concurrently."""
        checked: set[Variant] = set()
        variants = [self.variant(values, checked) for values in rows]
        counts: dict[Variant, int] = {}
        for v in variants:
            counts[v] = counts.get(v, 0) + 1
        eager = [i for i, v in enumerate(variants) if self.broken(v)]
        space = backend.new_space()
        pool = HostPool(eager_run.thread_count(control.num_threads, len(rows)))
        jobs = {v: self.job(v, backend, options, seed, n, space, pool.put)
                for v, n in counts.items() if v.trace is not None}
        ended = threading.Semaphore(0)
        states: list[Any] = [None] * len(rows)
        instances: dict[Variant, list[Instance]] = {v: [] for v in jobs}
        for i, (v, values) in enumerate(zip(variants, rows, strict=True)):
            if v.trace is not None:
                instance = Instance(jobs[v], first_row + i, arguments(values),
                                    lambda _: ended.release())
                instances[v].append(instance)
                states[i] = CompiledState(instance)
        bar = Progress(len(rows), control.progress_bar)
        try:
            for v, job in jobs.items():
                job.start_all(instances[v])
            for _ in range(len(rows) - len(eager)):
                ended.acquire()
                bar.step()
        except KeyboardInterrupt:
            error = eager_run.cancelled_error()
            for group in instances.values():
                for instance in group:
                    instance.cancel(error)  # one that has not started ends at once
            bar.interrupted()
            eager = []
        finally:
            bar.close()
            pool.close()
            backend.drop_space(space)
        if eager:
            done = eager_run.run_batch(
                self.program.signature, [rows[i] for i in eager], backend, options, seed, 0,
                num_threads=control.num_threads, progress=control.progress_bar,
                row_numbers=[first_row + i for i in eager])
            for i, state in zip(eager, done, strict=True):
                states[i] = state
        return states

    # -- lowering -------------------------------------------------------------------------
    def job(self, variant: Variant, backend: Any, options: RunOptions, seed: int, rows: int,
            space: int | None, run_host: Callable[[Callable[[], None]], None],
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
                raise TraceError(d.code, d.what, place=d.place, why=d.why, fixes=d.fixes,
                                 effect="the run ends here: its host calls cannot be repeated "
                                        "in the eager interpreter")
            return self.job(tail, backend, options, seed, rows, space, run_host, tuple(events))

        starred = [p.name for p in next(iter(variant.trace.module.programs.values())).args]
        starred = self.program.signature.starred(starred)
        return Job(low.code, backend, options, seed, space, variant.trace.calls, run_host, resume,
                   variant.trace.names, events)

    def lower(self, variant: Variant, tokenizer: Any, template: Any, options: RunOptions,
              rows: int, level: int = 2, **manager: Any) -> Lowered:
        """The variant through the pass pipeline, as steps; kept for the same conditions."""
        assert variant.trace is not None
        may_stop = bool(options.stop or options.stop_regex or template.stop)
        key = (tokenizer, template, may_stop, options.max_tokens, rows, level)
        with self._lock:
            found = variant.lowered.get(key)
            if found is None or manager:
                context = PassContext(tokenizer, template, rows, may_stop, options.max_tokens)
                found = lower(variant.trace.module, context, level,
                              outputs=self.program.settings.outputs, **manager)
                if not manager:
                    variant.lowered[key] = found
            return found


def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their IR name (`*args` parameters lose the star)."""
    return {name.lstrip("*"): value for name, value in values.items()}


def trace_variant(program: Any, values: Mapping[str, Any], events: Sequence[Any] = (),
                  known: Sequence[Any] = (),
                  lengths: Mapping[str, int] | None = None) -> Variant:
    """Trace the program for these arguments; giving up is a variant too.

    events: the outcomes of the first events of the path, to trace on after a break; known: the
    outside facts of the trace that broke.
    """
    tracer = Tracer(program.fn, values, events, known, lengths)
    try:
        trace = tracer.trace()
    except GraphBreak as e:
        session = getattr(tracer, "session", None)
        guards = tuple(session.guards) if session is not None else ()
        outside = tuple(session.outside.values()) if session is not None else ()
        return Variant(None, guards, outside, e.diagnostic, e.raises)
    return Variant(trace, trace.guards, trace.outside)


def lower(module: Module, context: PassContext, level: int, *,
          outputs: tuple[str, ...] | None = None, **manager: Any) -> Lowered:
    """Run the pipeline in its three stages: prompt, kv, plan."""
    names = pipeline(level).split(",")
    if outputs is not None:
        keep = ",".join(outputs)
        names = [f'eliminate-dead{{outputs="{keep}"}}' if n == "eliminate-dead" else n
                 for n in names]
    at = names.index("tokenize")
    stages = (names[:at], names[at:-1], names[-1:])
    records: list[PassRecord] = []
    modules = []
    current = module
    for stage in stages:
        pm = PassManager(",".join(stage), level=level, **manager)
        current = pm.run(current, context)
        records.extend(pm.records)
        modules.append(current)
    prompt, kv, plan = modules
    program = next(iter(plan.programs.values()))
    assert context.tokenizer is not None
    return Lowered(module, kv, plan, prompt, records, compile_plan(program, context.tokenizer),
                   context)


class Compiled:
    """What the compiler made of a program, to look at and to run."""

    def __init__(self, program: Any, variant: Variant, lowered: Lowered | None) -> None:
        self.program = program
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
        """The module "traced", and after the "prompt", "kv" and "plan" passes."""
        low = self._lowered
        if low is None:
            return {}
        return {"traced": low.traced, "prompt": low.prompt, "kv": low.kv, "plan": low.plan}

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
                    **manager: Any) -> Compiled:
    """Compile for given arguments, or with unknown ones where none are given.

    lengths: the lengths and counts to assume for unknown arguments, by name (2 for others).
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
    if variant.trace is None:
        if program.settings.fullgraph:
            program.compiler().broken(variant)
        return Compiled(program, variant, None)
    if backend is None:
        from sglc.tokens.bytes import ByteTokenizer
        from sglc.tokens.templates import for_tokenizer

        tokenizer: Any = ByteTokenizer()
        template: Any = for_tokenizer(tokenizer)
    else:
        tokenizer, template = backend.tokenizer, backend.template
    lowered = program.compiler().lower(variant, tokenizer, template, options, 1, level, **manager)
    return Compiled(program, variant, lowered)


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
