"""Running plans: instances as dataflow state machines, driven by the engine's completions.

An instance is one row of a batch.  It has no thread: a step runs as soon as its inputs are there,
on the caller's thread at first and on the engine's thread when a model call completes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from sglc.config import RunOptions, resolve
from sglc.errors import EngineError
from sglc.runtime import calls
from sglc.runtime.calls import Call, Outcome, Target
from sglc.runtime.plan_code import UNSET, PlanCode, SelectSpec, Step
from sglc.runtime.request import Request

SUBMIT_TOGETHER = 256  # requests of a starting batch

@dataclass(slots=True, eq=False)
class Job:
    """What the instances of one planned run share.  Also the target of their model calls.

    gens: options in force and compiled constraint of each gen of the code, by its index.
    """

    code: PlanCode
    target: Target
    options: RunOptions
    seed: int
    space: int | None = None
    gens: list[tuple[RunOptions, Any]] = field(default_factory=list)
    condition: threading.Condition = field(default_factory=threading.Condition)
    tokenizer: Any = None
    template: Any = None
    _held: list[Request] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.tokenizer, self.template = self.target.tokenizer, self.target.template
        for _, spec in self.code.gens:
            options = resolve(spec.params, self.options)
            self.gens.append((options, calls.constraint_for(options, self.tokenizer)))

    def submit(self, requests: Sequence[Request]) -> None:
        """Pass requests on, in handfuls while `start_all` runs."""
        with self._lock:
            held = self._held
            if held is not None:
                held.extend(requests)
                if len(held) < SUBMIT_TOGETHER:
                    return
                requests, self._held = held, []
        self.target.submit(requests)

    def cancel(self, requests: Sequence[Request]) -> None:
        self.target.cancel(requests)

    def start_all(self, instances: Sequence[Instance]) -> None:
        """Start instances; their first model calls reach the engine in handfuls."""
        self._held = []
        try:
            for instance in instances:
                instance.start()
        finally:
            with self._lock:
                held, self._held = self._held, None
            if held:
                self.target.submit(held)


class Instance:
    """One run of a planned program.

    Readers wait on the job's condition; a variable has its final value once all the steps that
    may still bind it are done.
    """

    __slots__ = ("_counts", "_env", "_flying", "_inbox", "_lock", "_on_end", "_ready", "_running",
                 "cancelled", "condition", "ended", "error", "job", "left", "messages", "metas",
                 "order", "result", "row", "stream", "values")

    def __init__(self, job: Job, row: int, arguments: Mapping[str, Any],
                 on_end: Callable[[Instance], None] | None = None,
                 stream: TextStream | None = None) -> None:
        code = job.code
        self.job = job
        self.row = row
        self.condition = job.condition
        self.error: BaseException | None = None
        self.cancelled: BaseException | None = None
        self.ended = False
        self.result: tuple[Any, ...] | None = None  # final prompt, return value
        self.values: dict[Any, Any] = {}
        self.order: dict[Any, int] = {}
        self.metas: dict[Any, Any] = {}
        self.left = code.binds.copy()
        self.messages: list[tuple[int, dict[str, str]]] = []
        self.stream = stream
        self._env = code.initial.copy()
        for name, slot in code.arg_slots.items():
            self._env[slot] = arguments[name]
        self._counts = code.counts.copy()
        self._flying: dict[int, Call] = {}
        self._inbox: deque[tuple[int, Outcome]] = deque()
        self._ready: list[int] = [0]  # groups that can run, a heap
        self._running = False
        self._lock = threading.Lock()
        self._on_end = on_end

    def start(self) -> None:
        """Run what can run; further steps follow on completions."""
        self._pump()

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
        groups = self.job.code.groups
        while True:
            while self._inbox:
                self._take(*self._inbox.popleft())
            while self._ready:
                group = groups[heappop(self._ready)]
                try:
                    self._run(group.steps)
                except Exception as e:
                    self._fail(e)
            with self._lock:
                if self._inbox:
                    continue
                self._running = False
                finished = not self._flying
            break
        if self.stream is not None:
            self.stream.advance(self._env)
        if finished:
            self._end()

    def _run(self, steps: list[Step]) -> None:
        env = self._env
        for step in steps:
            if self.error is not None:
                return
            if self.cancelled is not None:
                raise self.cancelled
            kind = step.kind
            inputs = step.inputs
            if kind == "pure":
                env[step.outputs[0]] = step.data(*[env[s] for s in inputs])
            elif kind == "gen":
                self._gen(step)
            elif kind == "bind":
                self._bind(step.data, env[inputs[0]], step.order)
            elif kind == "meta":
                self.metas[step.data] = env[inputs[0]]
            elif kind == "select":
                self._select(step)
            elif kind == "message":
                text = env[inputs[1]].text_since(env[inputs[0]]).lstrip()
                self.messages.append((step.order, {"role": step.data, "content": text}))
            elif kind == "branch":
                self._branch(step)
            elif kind == "yield":
                for slot, source in zip(step.outputs, inputs, strict=True):
                    env[slot] = env[source]
                self._fire(step.source)
            elif kind == "return":
                self.result = tuple([env[s] for s in inputs])

    def _branch(self, step: Step) -> None:
        data = step.data
        value = self._env[step.inputs[0]]
        labels = data["labels"]
        if labels == [True, False]:
            taken = 0 if value else 1
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

    # -- model calls ----------------------------------------------------------------------
    def _gen(self, step: Step) -> None:
        job = self.job
        gen, spec = step.data
        options, constraint = job.gens[gen]
        index = step.order
        on_text = None if self.stream is None else self.stream.listener(index, self)
        self._flying[index] = _PENDING
        call = calls.start_gen(
            job, self._env[step.inputs[0]], options,
            calls.gen_keys(options, job.seed, self.row, spec.path), constraint,
            lambda outcome: self._done(index, outcome), space=job.space,
            priority=(self.row, spec.rank), on_text=on_text)
        self._flew(index, call)

    def _select(self, step: Step) -> None:
        job = self.job
        spec: SelectSpec = step.data
        index = step.order
        prompt, *choices = [self._env[s] for s in step.inputs]
        self._flying[index] = _PENDING
        call = calls.start_select(job, prompt, choices, spec.method,
                                  lambda outcome: self._done(index, outcome), space=job.space,
                                  priority=(self.row, spec.rank))
        self._flew(index, call)

    def _flew(self, index: int, call: Call) -> None:
        with self._lock:
            if index in self._flying:  # not yet done
                self._flying[index] = call
        if self.cancelled is not None:
            self.job.cancel(call.requests)

    def _done(self, index: int, outcome: Outcome) -> None:
        with self._lock:
            self._inbox.append((index, outcome))
        self._pump()

    def _take(self, index: int, outcome: Outcome) -> None:
        with self._lock:
            del self._flying[index]
        if outcome.error is not None:
            self._fail(outcome.error)
            return
        step = self.job.code.steps[index]
        env = self._env
        prompt, value, meta = step.outputs
        env[prompt], env[value], env[meta] = outcome.prompt, outcome.value, outcome.meta
        self._fire(step.source)

    # -- the end --------------------------------------------------------------------------
    def _fail(self, error: BaseException) -> None:
        with self.condition:
            if self.error is None:
                self.error = error
            self.condition.notify_all()

    def cancel(self, error: BaseException) -> None:
        """Stop the instance; it ends with `error` once its calls have come back."""
        self.cancelled = error
        with self._lock:
            flying = [c for c in self._flying.values() if c is not _PENDING]
        for call in flying:
            self.job.cancel(call.requests)
        self._pump()

    def _end(self) -> None:
        with self.condition:
            if self.ended:
                return
            if self.result is None and self.error is None:
                self.error = self.cancelled or EngineError(
                    "SGLC503", "the plan stopped before its end")
            self.ended = True
            self.condition.notify_all()
        if self.stream is not None:
            self.stream.close(self.error)
        if self._on_end is not None:
            self._on_end(self)

    # -- reading --------------------------------------------------------------------------
    def wait_variable(self, name: Any, timeout: float | None = None) -> Any:
        """The final value of a variable; KeyError if the taken path binds none."""
        with self.condition:
            done = self.condition.wait_for(
                lambda: self.left.get(name, 0) <= 0 or self.ended or self.error, timeout)
            if not done:
                raise TimeoutError(f"no value of {name!r} within {timeout} s")
            if self.left.get(name, 0) > 0 and self.error is not None:
                raise self.error
            return self.values[name]

    def wait(self) -> None:
        """Until the end; raises the instance's error."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended)
        if self.error is not None:
            raise self.error


_PENDING = Call()


class TextStream:
    """Publishes the text of an instance's result, and of its variables, as it comes.

    push(name, piece): called with name None-marked `ROOT` for the whole text.
    """

    ROOT = object()

    def __init__(self, code: PlanCode, push: Callable[[Any, str], None],
                 close: Callable[[BaseException | None], None]) -> None:
        self.code = code
        self.push = push
        self.close = close
        self.todo: list[Any] = list(code.chain)
        self.sent: dict[int, int] = {}  # characters of a gen that are out
        self.buffers: dict[int, list[str]] = {}
        self.lock = threading.Lock()

    def listener(self, index: int, instance: Instance) -> Callable[[str], None]:
        """What a gen step calls with its text."""
        names = self.code.stream_names.get(index, ())

        def on_text(piece: str) -> None:
            for name in names:
                self.push(name, piece)
            self.buffers.setdefault(index, []).append(piece)
            self.advance(instance._env)

        return on_text

    def advance(self, env: list[Any]) -> None:
        """Publish what is known, in order."""
        with self.lock:
            while self.todo:
                entry = self.todo[0]
                if entry[0] == "branch":
                    taken = next((chain for slot, chain in entry[1] if env[slot] is True), None)
                    if taken is None:
                        return
                    self.todo[:1] = taken
                    continue
                slot, previous, gen = entry
                buffered = self.buffers.pop(gen, None) if gen is not None else None
                if buffered:
                    text = "".join(buffered)
                    self.sent[gen] = self.sent.get(gen, 0) + len(text)
                    self.push(self.ROOT, text)
                if env[slot] is UNSET or env[previous] is UNSET:
                    return
                text = env[slot].text_since(env[previous])
                self.push(self.ROOT, text[self.sent.get(gen, 0):])
                self.todo.pop(0)
