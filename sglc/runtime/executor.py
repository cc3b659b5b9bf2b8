"""Running plans: instances as dataflow state machines, driven by completions.

An instance is one row of a batch.  It has no thread: a step runs as soon as its inputs are there,
on the caller's thread at first, on the engine's when a model call completes.  Host calls (the
user's Python) run one after the other, where the job says.

What calls give is kept in a log (`call_log.py`).  Where a trace ended in a break, the plan is
replaced by one that goes further, and everything in the log counts as done.  What readers see of
a run is in `run_outputs.py`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

from sglc.errors import EngineError, SglcError
from sglc.runtime.call_log import CallLog
from sglc.runtime.calls import Call, Outcome
from sglc.runtime.host_chain import HostChain
from sglc.runtime.job import Job
from sglc.runtime.plan_code import Step
from sglc.runtime.request import Request
from sglc.runtime.run_outputs import Failed, RunOutputs
from sglc.runtime.text_stream import TextStream

LATE = 1 << 30  # rank of what is asked for ahead of time


class Instance:
    """One run of a planned program.

    outputs: what it has come to.  log: its calls.  cancelled: why it is to end, if it is.
    slots: the values of the code's slots, as far as they are there.
    """

    __slots__ = ("_counts", "_inbox", "_last", "_lock", "_on_end", "_ready", "_running", "_waiting",
                 "cancelled", "host_chain", "job", "log", "outputs", "row", "slots", "stream")

    def __init__(self, job: Job, row: int, arguments: Mapping[str, Any],
                 on_end: Callable[[Instance], None] | None = None,
                 stream: TextStream | None = None) -> None:
        self.row = row
        self.outputs = RunOutputs(job.condition, job.code)
        self.host_chain = HostChain(arguments, job)
        self.cancelled: BaseException | None = None
        self.stream = stream
        self._inbox: deque[tuple[Any, Any, int]] = deque()
        self._running = False
        self._lock = threading.Lock()
        self.log = CallLog(self._lock)
        self._on_end = on_end
        self._enter(job)

    def _enter(self, job: Job) -> None:
        """Begin (again) at the top of a job's code."""
        code = job.code
        self.job = job
        self.slots = code.initial.copy()
        for name, slot in code.arg_slots.items():
            self.slots[slot] = self.host_chain.before[name]
        for slot in code.batch_slots:
            self.slots[slot] = job.batch or {}
        self._counts = code.counts.copy()
        self._last: Step | None = None  # that raised: what comes behind it does not happen
        self._waiting: dict[Any, Step] = {}  # steps that wait for a call, by its key
        self._ready: list[int] = [0]  # groups that can run, a heap

    def start(self) -> None:
        """Run what can run; further steps follow on completions."""
        self._pump()

    # -- dataflow -------------------------------------------------------------------------
    def _fire(self, source: int) -> None:
        """A source has happened: count down the groups that wait for it."""
        if self.stream is not None:
            self.stream.happened.add(source)
        counts = self._counts
        for group in self.job.code.waiting[source]:
            counts[group] -= 1
            if counts[group] == 0:
                heappush(self._ready, group)

    def _pump(self) -> None:
        """Take in outcomes and run ready groups until none is left.  One thread at a time."""
        with self._lock:
            if self._running:
                return
            self._running = True
        while True:
            try:
                while self._inbox:
                    self._take(*self._inbox.popleft())
                while self._ready and not self._inbox:
                    self._run(self.job.code.groups[heappop(self._ready)].steps)
            except Exception as e:  # a defect here: the reader must not wait for ever
                self._crash(e)
            with self._lock:
                if self._inbox or self._ready:
                    continue
                self._running = False
                finished = not self.log.flying
                late = [] if finished else self.log.only_prefills()
            break
        if self.stream is not None:
            self.stream.advance(self.slots)
        if finished:
            self._end()
        elif late:
            self.job.cancel(late)

    def _run(self, steps: list[Step]) -> None:
        env, outputs = self.slots, self.outputs
        for step in steps:
            if self.cancelled is not None:
                return
            kind = step.kind
            inputs = step.inputs
            if self._last is not None and step.order > self._last.order and kind != "pure":
                continue
            if kind == "pure":
                values = [env[s] for s in inputs]
                failed = next((v for v in values if type(v) is Failed), None)
                if failed is None:  # a list of what failed would be one that did not
                    try:
                        env[step.outputs[0]] = step.data(*values)
                    except Exception as e:
                        failed = Failed(e)
                if failed is not None:
                    env[step.outputs[0]] = failed
            elif kind == "gen" or kind == "select":
                self._call(step)
            elif kind == "prefill":
                self._prefill(step)
            elif kind == "bind":
                outputs.bind(step.data, env[inputs[0]], step.order)
            elif kind == "meta":
                outputs.set_meta(step.data, env[inputs[0]], step.order)
            elif kind == "message":
                outputs.add_message(step.data, env[inputs[0]], env[inputs[1]], step.order)
            elif kind == "branch":
                self._branch(step)
            elif kind == "yield":
                for slot, source in zip(step.outputs, inputs, strict=True):
                    env[slot] = env[source]
                self._fire(step.source)
            elif kind == "return":
                outputs.result = tuple([env[s] for s in inputs])
            elif kind == "read":
                self._read(step)
            else:
                self._host(step)

    def _branch(self, step: Step) -> None:
        data = step.data
        value = self.slots[step.inputs[0]]
        if isinstance(value, Failed):  # no arm is taken, and what the branch gives fails with it
            for slot in data["results"]:
                self.slots[slot] = value
            self._fire(data["merge"])
            return
        labels = data["labels"]
        if labels == [True, False]:
            taken = 0 if value else 1
            self.host_chain.events[data["event"]] = bool(value)
        else:
            taken = labels.index(value) if value in labels else labels.index("default")
        self.outputs.skip([binds for i, binds in enumerate(data["binds"]) if i != taken])
        self.slots[step.outputs[taken]] = True
        self._fire(data["arms"][taken])

    # -- calls ----------------------------------------------------------------------------
    def _await(self, step: Step, key: Any) -> bool:
        """Whether a call must still be made; else its outcome is there or on its way."""
        given = self.log.given
        if key in given:
            self._deliver(step, given[key])
            return False
        self._waiting[key] = step
        return self.log.begin(key)

    def _call(self, step: Step) -> None:
        """A gen or select."""
        env, job = self.slots, self.job
        prompt, *choices = [env[s] for s in step.inputs]
        for value in (prompt, *choices):
            if isinstance(value, Failed):
                for slot in step.outputs:
                    env[slot] = value
                self._fire(step.source)
                return
        spec = step.data[1] if step.kind == "gen" else step.data
        path, key = spec.path, step.key
        if spec.offset:  # how many calls came before was not known ahead of time
            shifted = list(path)
            for position in reversed(spec.offset):
                shifted[position] += choices.pop()
            path = tuple(shifted)
            key = ("call", path)
            if self.stream is not None:
                self.stream.resolve(step.outputs[0], key)
        # A call made ahead of a guess that failed may have been asked something else.
        options = job.gens[step.data[0]][0] if step.kind == "gen" else None
        asked = (prompt.content(), options, choices)
        stale = self.log.ask(key, asked)
        if stale is not None:
            job.cancel(stale.requests)
        if not self._await(step, key):
            return
        number = self.log.number(key)

        def done(outcome: Outcome) -> None:
            if job.plan is not None:
                job.plan.learn(key, outcome)
            self._arrive(key, outcome, number)

        if step.kind == "gen":
            on_text = None if self.stream is None else self.stream.listener(key, self)
            call = job.start_gen(step, prompt, self.row, path, done, on_text)
        else:
            call = job.start_select(step, prompt, choices, self.row, done)
        self.log.made(key, call)
        if self.cancelled is not None:
            job.cancel(call.requests)

    def _prefill(self, step: Step) -> None:
        """Ask for the KV of a prompt whose continuation waits; nothing waits for it."""
        prompt, job = self.slots[step.inputs[0]], self.job
        key = ("prefill", id(job.code), step.order)
        ids = None if isinstance(prompt, Failed) else prompt.stable_ids()
        if not ids or key in self.log.flying:
            return
        request = Request("prefill", ids, lambda _: self._arrive(key, None), space=job.space,
                          priority=(self.row, LATE, step.order), images=prompt.images)
        self.log.flying[key] = Call([request])
        job.submit([request])
        if self.cancelled is not None:
            job.cancel([request])

    def _host(self, step: Step) -> None:
        """A step of the host chain: the user's Python, a check of a guess, or a break."""
        values = [self.slots[s] for s in step.inputs]
        for value in values[step.data.args:] if step.data.tries else values:
            if isinstance(value, Failed):  # Python would have read it, and raised
                self._fail(value.error, step)
                return
        if not self._await(step, step.key):
            return
        job, key, chain = self.job, step.key, self.host_chain
        chain.called |= step.kind == "host" and not job.hosts[step.data.call].repeatable

        def run() -> None:
            if self.cancelled is not None:
                value: Any = Failed(self.cancelled)
            else:
                value = chain.run(job, step, values)
            if job.plan is not None:
                job.plan.learn(key, value)
            self._arrive(key, value)

        assert job.run_host is not None
        job.run_host(run)

    def _read(self, step: Step) -> None:
        """A step of the host chain that only waits."""
        for slot in step.inputs:
            value = self.slots[slot]
            if isinstance(value, Failed):
                if isinstance(value.error, SglcError):
                    value.error.locate(step.data.place)
                self._fail(value.error, step)
                return
        self._fire(step.source)

    def _arrive(self, key: Any, value: Any, number: int = 0) -> None:
        """What a call gave, from any thread."""
        with self._lock:
            self._inbox.append((key, value, number))
        self._pump()

    def _take(self, key: Any, value: Any, number: int) -> None:
        if not self.log.landed(key, number):
            return
        if isinstance(value, Job):
            if self.stream is not None:
                self.stream.enter(value.code)
            self.outputs.begin(value.code)
            self.host_chain.begin(value)
            self._enter(value)
            return
        self.log.keep(key, value)
        step = self._waiting.pop(key, None)
        if step is not None:
            self._deliver(step, value)

    def _deliver(self, step: Step, value: Any) -> None:
        """Set the outputs of a call's step."""
        env = self.slots
        if isinstance(value, Outcome):
            if value.error is not None:
                failed = Failed(value.error)
                for slot in step.outputs:
                    env[slot] = failed
            else:
                prompt, text, meta = step.outputs
                env[prompt] = value.extend(env[step.inputs[0]])
                env[text], env[meta] = value.value, value.meta
        elif isinstance(value, Failed):
            self._fail(value.error, step)
            return
        elif step.kind == "host":
            env[step.outputs[0]] = value
        else:
            self.host_chain.events[step.data.event] = value
        self._fire(step.source)

    # -- the end --------------------------------------------------------------------------
    def _fail(self, error: BaseException, step: Step) -> None:
        """The body raises at this step of the host chain; what came before it goes on."""
        self._last = step
        self.outputs.fail(error)

    def _crash(self, error: Exception) -> None:
        outputs = self.outputs
        failed = outputs.error = outputs.error or EngineError(
            "SGLC503", f"the plan executor failed: {error!r}")
        failed.__cause__ = error
        outputs.result = None
        self._ready.clear()
        self.log.drop_unmade()
        self.cancel(failed)

    def cancel(self, error: BaseException) -> None:
        """Stop the instance; it ends with `error` once its calls have come back."""
        self.cancelled = error
        for call in self.log.under_way():
            self.job.cancel(call.requests)
        self._pump()

    def _end(self) -> None:
        outputs = self.outputs
        result = outputs.result
        if self._last is not None:
            root = self._last.data.root
            result = None if root < 0 else (self.slots[root],)
        if not outputs.end(result, self.cancelled):
            return
        if self.stream is not None:
            self.stream.finish(outputs.end_of_text())
        if self.job.plan is not None:
            self.job.plan.ended(self.row)
        if self._on_end is not None:
            self._on_end(self)
