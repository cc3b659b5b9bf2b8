"""The compiled variants of one program: found or made for arguments, lowered, and run.

What cannot be compiled is left to the eager interpreter (`eager_run.py`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sglc.collector import collection_paused
from sglc.config import RunOptions
from sglc.errors import SglcError, SglcWarning, TailNotTraced, TraceError
from sglc.lang import eager_run
from sglc.lang.calling import Controls
from sglc.lang.compiled_state import CompiledState, open_stream
from sglc.lang.host_threads import HostPool, HostQueue
from sglc.lang.lowering import Lowered, arguments, lower
from sglc.lang.state import ProgramState
from sglc.lang.variants import Variant, Variants, trace_variant
from sglc.passes.base import PassContext
from sglc.progress import Progress
from sglc.runtime.dispatch import Dispatcher, dispatcher_of
from sglc.runtime.executor import Instance
from sglc.runtime.job import Job
from sglc.trace.guards import snapshot

MAX_TAILS = 256  # continuations kept for one variant


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
            for tail in variant.tails.get(key, ()):
                if tail.applies(values):
                    return tail.variant
            found = trace_variant(self.program, values, events, variant.outside)
            if key is not None and sum(map(len, variant.tails.values())) < MAX_TAILS:
                variant.add_tail(key, found)
            return found

    # -- running --------------------------------------------------------------------------
    def start(self, backend: Any, values: dict[str, Any], options: RunOptions, seed: int,
              stream: bool) -> CompiledState | None:
        """Start one run; None if it must run eagerly.

        Host calls run on this thread, and the run comes back when they are through; with
        `stream` they have a thread of their own, and a program with breaks runs eagerly.
        """
        variant = self.variant(values)
        if self.broken(variant):
            return None
        assert variant.trace is not None
        if stream and variant.trace.breaks:
            return None  # nothing that was streamed can be taken back, should the rest not trace
        space = backend.new_space()
        hosts = HostQueue()
        batch = self.program.settings.batch_texts([values])
        plan = dispatcher_of(backend)
        job = self.job(variant, values, backend, options, seed, 1, space, hosts.put, batch, plan)

        def on_end(instance: Instance) -> None:
            backend.drop_space(space)
            hosts.close()

        instance = Instance(job, 0, arguments(values), on_end)
        sinks = None
        if stream:
            instance.stream, sinks = open_stream(job, variant.trace.names, job.condition)
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
                    instance.outputs.wait_body()
                except TailNotTraced as e:
                    if not self.can_restart(instance, e):
                        raise
                    return None
        return state

    def can_restart(self, instance: Instance, error: TailNotTraced) -> bool:
        """Whether a run that got stuck after a break can begin again in the eager interpreter:
        its gens give the same again, and nothing else has happened.  Says so."""
        if instance.host_chain.called or self.program.settings.fullgraph:
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
        plan = dispatcher_of(backend)
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
                try:
                    jobs[key] = self.job(v, values, backend, options, seed, counts[v], space,
                                         pool.put, batch, plan)
                except SglcError:  # a constraint that cannot be: the row says so, run eagerly
                    eager.append(i)
                    continue
                instances[key] = []
            instance = Instance(jobs[key], numbers[i], given, lambda _, i=i: ended.put(i))
            instances[key].append(instance)
            by_row[i] = instance
            states[i] = CompiledState(instance)
        bar = Progress(len(rows), control.progress_bar)
        try:
            with collection_paused():  # what starts lives on until its row is over
                if plan is not None:
                    plan.start_all(sorted([i for group in instances.values() for i in group],
                                          key=lambda i: i.row))
                else:
                    for key, job in jobs.items():
                        job.start_all(instances[key])
            for _ in range(len(rows) - len(eager)):
                i = ended.get()
                bar.step()
                if on_row is not None and not isinstance(by_row[i].outputs.error, TailNotTraced):
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
                     and isinstance(instance.outputs.error, TailNotTraced)
                     and self.can_restart(instance, instance.outputs.error)]
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
