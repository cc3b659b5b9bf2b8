"""Running plans: instances as dataflow state machines, driven by completions.

An instance is one row of a batch.  It has no thread: a step runs as soon as its inputs are there,
on the caller's thread at first, on the engine's when a model call completes.  Host calls (the
user's Python) run one after the other, where the job says.

What calls give is kept in a log by the call's key.  Where a trace ended in a break, the plan is
replaced by one that goes further, and everything in the log counts as done.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

from sglc.errors import EngineError
from sglc.runtime import calls
from sglc.runtime.calls import Call, Outcome
from sglc.runtime.copies import plain_copy
from sglc.runtime.job import Job
from sglc.runtime.plan_code import UNSET, Step
from sglc.runtime.request import Request
from sglc.runtime.text_stream import TextStream

LATE = 1 << 30  # rank of what is asked for ahead of time


class Failed:
    """Stands for the value of a call that failed; whatever needs it fails likewise."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Instance:
    """One run of a planned program.

    Readers wait on the job's condition; a variable has its final value once all the steps that
    may still bind it are done, and the host chain with them.
    """

    __slots__ = ("_asked", "_before", "_calls", "_counts", "_env", "_events", "_flying",
                 "_inbox", "_last", "_lock", "_log", "_now", "_numbers", "_on_end", "_ready",
                 "_running", "_waiting", "arguments", "called", "cancelled", "condition", "ended",
                 "error", "job", "left", "messages", "metas", "order", "result", "row", "stream",
                 "values")

    def __init__(self, job: Job, row: int, arguments: Mapping[str, Any],
                 on_end: Callable[[Instance], None] | None = None,
                 stream: TextStream | None = None) -> None:
        self.row = row
        self.arguments = arguments
        self.condition = job.condition
        self.error: BaseException | None = None  # that ended the body
        self.cancelled: BaseException | None = None
        self.ended = False
        self.called = False  # the user's Python was called in a way that cannot be repeated
        self.stream = stream
        self._flying: dict[Any, Call | None] = {}  # calls that are under way, by key
        self._log: dict[Any, Any] = {}  # what calls gave, by key
        self._asked: dict[Any, Any] = {}  # and what they were asked
        self._numbers: dict[Any, int] = {}  # the model calls made last, by key
        self._calls = 0
        self._inbox: deque[tuple[Any, Any, int]] = deque()
        self._running = False
        self._lock = threading.Lock()
        self._on_end = on_end
        # Pure steps read the arguments as they were when the run began; host calls may change
        # the real ones.
        self._now = {**arguments, **{f"*{k}": v for k, v in arguments.items()}}
        self._before = self._now
        if job.code.chained:
            self._before = {k: plain_copy(v) for k, v in self._now.items()}
        self._enter(job)

    def _enter(self, job: Job) -> None:
        """Begin (again) at the top of a job's code."""
        code = job.code
        self.job = job
        self.result: tuple[Any, ...] | None = None  # final prompt, return value
        self.values: dict[Any, Any] = {}
        self.order: dict[Any, int] = {}
        self.metas: dict[Any, tuple[int, Any]] = {}  # with the orders of their steps
        self.messages: list[tuple[int, Any]] = []
        self.left = code.binds.copy()
        self._env = code.initial.copy()
        for name, slot in code.arg_slots.items():
            self._env[slot] = self._before[name]
        for slot in code.batch_slots:
            self._env[slot] = job.batch or {}
        self._counts = code.counts.copy()
        self._events: dict[int, Any] = dict(enumerate(job.events))
        self._last: Step | None = None  # that raised: what comes behind it does not happen
        self._waiting: dict[Any, Step] = {}  # steps that wait for a call, by its key
        self._ready: list[int] = [0]  # groups that can run, a heap

    def start(self) -> None:
        """Run what can run; further steps follow on completions."""
        self._pump()

    @property
    def slots(self) -> list[Any]:
        """The values of the code's slots, as far as they are there."""
        return self._env

    # -- dataflow -------------------------------------------------------------------------
    def _fire(self, source: int) -> None:
        """A source has happened: count down the groups that wait for it."""
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
                finished = not self._flying
                late = [] if finished else self._only_prefills()
            break
        if self.stream is not None:
            self.stream.advance(self._env)
        if finished:
            self._end()
        elif late:
            self.job.cancel(late)

    def _run(self, steps: list[Step]) -> None:
        env = self._env
        for step in steps:
            if self.cancelled is not None:
                return
            kind = step.kind
            inputs = step.inputs
            if self._last is not None and step.order > self._last.order and kind != "pure":
                continue
            if kind == "pure":
                values = [env[s] for s in inputs]
                try:
                    env[step.outputs[0]] = step.data(*values)
                except Exception as e:
                    failed = next((v for v in values if isinstance(v, Failed)), None)
                    env[step.outputs[0]] = failed or Failed(e)
            elif kind == "gen" or kind == "select":
                self._call(step)
            elif kind == "prefill":
                self._prefill(step)
            elif kind == "bind":
                self._bind(step.data, env[inputs[0]], step.order)
            elif kind == "meta":
                if step.order >= self.metas.get(step.data, (-1, None))[0]:
                    self.metas[step.data] = step.order, env[inputs[0]]
            elif kind == "message":
                self._message(step, env[inputs[0]], env[inputs[1]])
            elif kind == "branch":
                self._branch(step)
            elif kind == "yield":
                for slot, source in zip(step.outputs, inputs, strict=True):
                    env[slot] = env[source]
                self._fire(step.source)
            elif kind == "return":
                self.result = tuple([env[s] for s in inputs])
            else:
                self._host(step)

    def _branch(self, step: Step) -> None:
        data = step.data
        value = self._env[step.inputs[0]]
        if isinstance(value, Failed):
            self._fail(value.error, step)
            return
        labels = data["labels"]
        if labels == [True, False]:
            taken = 0 if value else 1
            self._events[data["event"]] = bool(value)
        else:
            taken = labels.index(value) if value in labels else labels.index("default")
        with self.condition:
            for i, binds in enumerate(data["binds"]):
                if i != taken:
                    for name, n in binds.items():
                        self.left[name] -= n
            self.condition.notify_all()
        self._env[step.outputs[taken]] = True
        self._fire(data["arms"][taken])

    def _bind(self, name: Any, value: Any, order: int) -> None:
        with self.condition:
            if order >= self.order.get(name, -1):
                self.values[name], self.order[name] = value, order
            self.left[name] -= 1
            self.condition.notify_all()

    def meta(self, name: Any) -> Any:
        """The meta of a variable, unless something else has been assigned to it since."""
        order, meta = self.metas.get(name, (-1, None))
        return meta if order >= self.order.get(name, -1) else None

    def _message(self, step: Step, begin: Any, end: Any) -> None:
        if isinstance(end, Failed) or isinstance(begin, Failed):
            return
        content = end.text_since(begin).lstrip()
        self.messages.append((step.order, {"role": step.data, "content": content}))

    # -- calls ----------------------------------------------------------------------------
    def _await(self, step: Step, key: Any) -> bool:
        """Whether a call must still be made; else its outcome is there or on its way."""
        if key in self._log:
            self._deliver(step, self._log[key])
            return False
        self._waiting[key] = step
        if key in self._flying:
            return False
        self._flying[key] = None
        return True

    def _call(self, step: Step) -> None:
        """A gen or select."""
        env, job = self._env, self.job
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
        if self._asked.get(key, asked) != asked:
            self._log.pop(key, None)
            stale = self._flying.pop(key, None)
            if stale is not None:
                job.cancel(stale.requests)
        self._asked[key] = asked
        if not self._await(step, key):
            return
        number = self._calls = self._calls + 1

        def done(outcome: Outcome) -> None:
            if job.plan is not None:
                job.plan.learn(key, outcome)
            self._arrive(key, outcome, number)

        if step.kind == "gen":
            options, constraint = job.gens[step.data[0]]
            self._numbers[key] = number
            on_text = None if self.stream is None else self.stream.listener(key, self)
            call = job.calls.start_gen(
                job, prompt, options, calls.gen_keys(options, job.seed, self.row, path),
                constraint, done, space=job.space, priority=(self.row, spec.rank, step.order),
                on_text=on_text, reader=job.reader(spec), continues=spec.fused, rides=spec.rides,
                bound=spec.most if job.plan is not None and not options.heal else None)
        else:
            self._numbers[key] = number
            call = job.calls.start_select(
                job, prompt, choices, spec.method, done, space=job.space,
                priority=(self.row, spec.rank, step.order), ids=spec.ids)
        with self._lock:
            if key in self._flying:  # not yet done
                self._flying[key] = call
        if self.cancelled is not None:
            job.cancel(call.requests)

    def _prefill(self, step: Step) -> None:
        """Ask for the KV of a prompt whose continuation waits; nothing waits for it."""
        prompt, job = self._env[step.inputs[0]], self.job
        key = ("prefill", id(job.code), step.order)
        ids = None if isinstance(prompt, Failed) else prompt.stable_ids()
        if not ids or key in self._flying:
            return
        request = Request("prefill", ids, lambda _: self._arrive(key, None), space=job.space,
                          priority=(self.row, LATE, step.order), images=prompt.images)
        self._flying[key] = Call([request])
        job.submit([request])
        if self.cancelled is not None:
            job.cancel([request])

    def _only_prefills(self) -> list[Request]:
        """What is under way, if that is nothing but KV that nobody will read any more."""
        if any(key[0] != "prefill" for key in self._flying):
            return []
        return [r for call in self._flying.values() if call is not None for r in call.requests]

    def _host(self, step: Step) -> None:
        """A step of the host chain: the user's Python, a check of a guess, or a break."""
        values = [self._env[s] for s in step.inputs]
        for value in values:
            if isinstance(value, Failed):  # Python would have read it, and raised
                self._fail(value.error, step)
                return
        if not self._await(step, step.key):
            return
        job, spec, kind, key = self.job, step.data, step.kind, step.key
        host = job.hosts[spec.call]
        self.called |= kind == "host" and not host.repeatable

        def run() -> None:
            try:
                if self.cancelled is not None:
                    raise self.cancelled
                value: Any = host.run(values[: spec.args], self._before, self._now)
                if kind == "break" or (kind == "check" and not host.matches(value)):
                    value = self._resumed(spec.event, value)
            except BaseException as e:
                value = Failed(e)
            if job.plan is not None:
                job.plan.learn(key, value)
            self._arrive(key, value)

        assert job.run_host is not None
        job.run_host(run)

    def _resumed(self, event: int, value: Any) -> Job:
        """The job that goes on where the trace did not know an event's outcome."""
        assert self.job.resume is not None
        outcomes = [self._events[i] for i in range(event)]
        began = {k: self._before[k] for k in self.arguments}
        return self.job.resume(began, [*outcomes, value])

    def _arrive(self, key: Any, value: Any, number: int = 0) -> None:
        """What a call gave, from any thread."""
        with self._lock:
            self._inbox.append((key, value, number))
        self._pump()

    def _take(self, key: Any, value: Any, number: int) -> None:
        if number != self._numbers.get(key, 0):
            return  # of a call that was asked anew
        with self._lock:
            del self._flying[key]
        if isinstance(value, Job):
            if self.stream is not None:
                self.stream.enter(value.code)
            self._enter(value)
            return
        if key[0] != "event" and key[0] != "prefill":
            self._log[key] = value
        step = self._waiting.pop(key, None)
        if step is not None:
            self._deliver(step, value)

    def _deliver(self, step: Step, value: Any) -> None:
        """Set the outputs of a call's step."""
        env = self._env
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
            self._events[step.data.event] = value
        self._fire(step.source)

    # -- the end --------------------------------------------------------------------------
    def _fail(self, error: BaseException, step: Step) -> None:
        """The body raises at this step; what came before it goes on."""
        with self.condition:
            if self.error is None:
                self.error, self._last = error, step
            self.condition.notify_all()

    def _crash(self, error: Exception) -> None:
        self.error = self.error or EngineError("SGLC503", f"the plan executor failed: {error!r}")
        self.error.__cause__ = error
        self.result = None
        self._ready.clear()
        with self._lock:
            for key in [k for k, c in self._flying.items() if c is None and k[0] == "call"]:
                del self._flying[key]  # being made when it happened: it will not come back
        self.cancel(self.error)

    def cancel(self, error: BaseException) -> None:
        """Stop the instance; it ends with `error` once its calls have come back."""
        self.cancelled = error
        with self._lock:
            flying = [c for c in self._flying.values() if c is not None]
        for call in flying:
            self.job.cancel(call.requests)
        self._pump()

    def _end(self) -> None:
        with self.condition:
            if self.ended:
                return
            if self.cancelled is not None and (self.result is None or any(
                    n > 0 for n in self.left.values())):
                self.error = self.error or self.cancelled
            if self._last is not None:
                root = getattr(self._last.data, "root", -1)
                self.result = None if root < 0 else (self._env[root],)
            elif self.result is None and self.error is None:
                self.error = EngineError("SGLC503", "the plan stopped before its end")
            self.ended = True
            self.condition.notify_all()
        if self.stream is not None:
            self.stream.finish(self.failure())
        if self.job.plan is not None:
            self.job.plan.ended(self.row)
        if self._on_end is not None:
            self._on_end(self)

    # -- reading --------------------------------------------------------------------------
    def failure(self) -> BaseException | None:
        """The error of an ended run: the body's, or that of its prompt."""
        if self.error is not None:
            return self.error
        if self.result is not None and isinstance(self.result[0], Failed):
            return self.result[0].error
        return None

    def wait_variable(self, name: Any, timeout: float | None = None) -> Any:
        """The final value of a variable; KeyError if the taken path binds none."""
        with self.condition:
            done = self.condition.wait_for(
                lambda: self.ended or (not self.job.code.chained
                                       and self.left.get(name, 0) <= 0), timeout)
            if not done:
                raise TimeoutError(f"no value of {name!r} within {timeout} s")
            value = self.values[name]
        if isinstance(value, Failed):
            raise value.error
        return value

    def prompt(self) -> Any:
        """The final prompt, or what there was of it when the body raised."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended)
        if self.result is None or isinstance(self.result[0], Failed) or self.result[0] is UNSET:
            error = self.failure()
            assert error is not None
            raise error
        return self.result[0]

    def wait_body(self) -> None:
        """Until the user's Python is through; raises what it raised."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended or self.error is not None)
        if self.error is not None:
            raise self.error

    def wait(self) -> None:
        """Until the end; raises the run's error."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended)
        error = self.failure()
        if error is not None:
            raise error
