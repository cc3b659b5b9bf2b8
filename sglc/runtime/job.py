"""What the instances of a planned run share: code, options, model and host calls.

It makes their model calls, and passes the requests on, held back for a moment while many
instances start.  Running one instance is in `executor.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from sglc.config import RunOptions, resolve
from sglc.errors import IRError, SglcError
from sglc.runtime.calls import Call, Outcome, Target, gen_keys
from sglc.runtime.dispatch import Dispatcher
from sglc.runtime.plan_code import GenSpec, PlanCode, Step
from sglc.runtime.request import Request

if TYPE_CHECKING:
    from sglc.runtime.executor import Instance

SUBMIT_TOGETHER = 256  # requests of a starting batch


class HostCall(Protocol):
    """A call of the user's Python, as the tracer recorded it (see `trace/hosts.py`)."""

    def run(self, values: Sequence[Any], before: Mapping[str, Any],
            now: Mapping[str, Any]) -> Any: ...

    def matches(self, value: Any) -> bool: ...

    @property
    def fn(self) -> Any: ...

    @property
    def repeatable(self) -> bool: ...


@dataclass(slots=True, eq=False)
class Job:
    """What the instances of one planned run share.  Also the target of their model calls.

    hosts: the host calls of the code.  run_host: takes a function to run where host calls run.
    resume: (arguments, outcomes of the path's events) -> the job that goes on after a break.
    gens: options in force and compiled constraint of each gen of the code, by its index.
    names: the program's variables, in order of first binding.  events: the outcomes that the
    code takes for granted, from the beginning of the path.  batch: in how many rows each text of
    their arguments is, where bags are ordered by it.  plan: of the batch, None where requests go
    to the target as they come.
    """

    code: PlanCode
    target: Target
    options: RunOptions
    seed: int
    space: int | None = None
    hosts: Sequence[HostCall] = ()
    run_host: Callable[[Callable[[], None]], None] | None = None
    resume: Callable[[Mapping[str, Any], Sequence[Any]], Job] | None = None
    names: tuple[Any, ...] = ()
    events: tuple[Any, ...] = ()
    batch: Mapping[str, int] | None = None
    plan: Dispatcher | None = None
    gens: list[tuple[RunOptions, Any]] = field(default_factory=list)
    condition: threading.Condition = field(default_factory=threading.Condition)
    tokenizer: Any = None
    template: Any = None
    calls: Any = None
    _held: list[Request] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.tokenizer, self.template = self.target.tokenizer, self.target.template
        self.calls = self.target.calls
        for _, spec in self.code.gens:
            if spec.reader >= len(self.hosts):
                raise IRError("SGLC201", "a gen of parsed IR has no schema to read its text with")
            options = resolve(spec.params, self.options)
            if options.num_api_spec_tokens and not spec.followed:
                options = replace(options, num_api_spec_tokens=0)
            try:
                constraint = self.calls.constraint_for(options, self.tokenizer)
            except SglcError as e:
                e.locate(spec.place)
                raise
            self.gens.append((options, constraint))

    def submit(self, requests: Sequence[Request]) -> None:
        """Pass requests on, in handfuls while `start_all` runs."""
        if self.plan is not None:
            self.plan.submit(self, requests)
            return
        with self._lock:
            held = self._held
            if held is not None:
                held.extend(requests)
                if len(held) < SUBMIT_TOGETHER:
                    return
                requests, self._held = held, []
        self.target.submit(requests)

    def cancel(self, requests: Sequence[Request]) -> None:
        (self.plan or self.target).cancel(requests)

    def reader(self, spec: GenSpec) -> Any:
        """What makes a gen's text a value, None if the text is the value."""
        return None if spec.reader < 0 else self.hosts[spec.reader].fn

    def start_gen(self, step: Step, prompt: Any, row: int, path: tuple[int, ...],
                  done: Callable[[Outcome], None], on_text: Callable[[str], None] | None) -> Call:
        """Make the model call of a gen's step; `path`: where in its run it is."""
        index, spec = step.data
        options, constraint = self.gens[index]
        call: Call = self.calls.start_gen(
            self, prompt, options, gen_keys(options, self.seed, row, path), constraint, done,
            space=self.space, priority=(row, spec.rank, step.order), on_text=on_text,
            reader=self.reader(spec), continues=spec.fused, rides=spec.rides,
            bound=spec.most if self.plan is not None and not options.heal else None)
        return call

    def start_select(self, step: Step, prompt: Any, choices: Sequence[str], row: int,
                     done: Callable[[Outcome], None]) -> Call:
        """Make the model call of a select's step."""
        spec = step.data
        call: Call = self.calls.start_select(
            self, prompt, choices, spec.method, done, space=self.space,
            priority=(row, spec.rank, step.order), ids=spec.ids)
        return call

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
