"""The host chain of one run: calls of the user's Python, one after the other in program order.

A call gives a value; a check compares what it gives with what the trace took for granted; a break
always ends the trace.  Where the trace does not know how to go on, what comes of the call is the
job that does.  On which thread calls run is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sglc.runtime.copies import plain_copy
from sglc.runtime.job import Job
from sglc.runtime.plan_code import Step
from sglc.runtime.run_outputs import Failed


class HostChain:
    """What the calls of one run are given, and what they came to.

    before: the arguments as they were when the run began, which pure steps read too; host calls
    may change the real ones.  events: the outcomes of the path's events so far, by number.
    called: whether something was called in a way that cannot be repeated.
    """

    __slots__ = ("_arguments", "_now", "before", "called", "events")

    def __init__(self, arguments: Mapping[str, Any], job: Job) -> None:
        self._arguments = arguments
        self._now = {**arguments, **{f"*{k}": v for k, v in arguments.items()}}
        self.before = self._now
        if job.code.chained:
            self.before = {k: plain_copy(v) for k, v in self._now.items()}
        self.called = False
        self.begin(job)

    def begin(self, job: Job) -> None:
        """Take for granted what a job's code does."""
        self.events: dict[int, Any] = dict(enumerate(job.events))

    def run(self, job: Job, step: Step, values: Sequence[Any]) -> Any:
        """Make the call of a step.  Returns its value, the `Job` that goes on from here, or
        `Failed`."""
        spec, kind = step.data, step.kind
        host = job.hosts[spec.call]
        try:
            value = host.run(values[: spec.args], self.before, self._now)
            if kind == "break" or (kind == "check" and not host.matches(value)):
                return self._resumed(job, spec.event, value)
        except BaseException as e:
            return Failed(e)
        return value

    def _resumed(self, job: Job, event: int, value: Any) -> Job:
        """The job that goes on where the trace did not know an event's outcome."""
        assert job.resume is not None
        outcomes = [self.events[i] for i in range(event)]
        began = {k: self.before[k] for k in self._arguments}
        return job.resume(began, [*outcomes, value])
