"""Batches of planned instances on an engine: who goes when, and what is kept for whom.

All instances start at once as far as they need no model; what they ask for first is held until
the plan of the batch is there (`plan/planner.py`), and until their turn comes.  Then their
requests carry their place in the plan, and pins on what later calls read again.  An instance
whose turn came is never held up here: what starts when is the scheduler's, and the first in the
plan always can.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sglc.plan.planner import BatchPlan, Group, Learned, Need, Window
from sglc.runtime.calls import Outcome
from sglc.runtime.pins import Pin
from sglc.runtime.plan_sizes import ALL, CallPlan, PlanSizes
from sglc.runtime.request import Request
from sglc.tokens.prompt import Prompt
from sglc.tokens.text import utf8

if TYPE_CHECKING:
    from sglc.runtime.executor import Instance
    from sglc.runtime.job import Job
    from sglc.runtime.plan_code import PlanCode, Step

_EARLY = CallPlan(ALL, -1)  # a prefill: it goes after the calls of its instance
TIGHT = 64  # a limit on new tokens that is always reserved in full
HOST_TEXT = 256  # bytes that a call of the user's Python is taken to give, before there was one
AHEAD = 1.25  # of the memory: how much of a batch is under way


@dataclass(slots=True, eq=False)
class _Entry:
    """One instance.  groups: of its prompts, once for each; charge: what it counts for in the
    window, 0 before its turn; need: while the batch starts, what it needs."""

    instance: Instance
    held: list[tuple[Request, CallPlan, int | None]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    place: int = 0
    charge: int = 0
    pin: Pin | None = None
    need: Need | None = None


class Dispatcher:
    """Plans the instances of one batch.  Methods may be called from any thread.

    target: the backend; memory: its KV tokens.
    """

    def __init__(self, target: Any, memory: int) -> None:
        self.target = target
        self.memory = memory
        self._lock = threading.RLock()
        self._entries: dict[int, _Entry] = {}  # by row
        self._todo: list[_Entry] = []  # the next one last
        self._plan: BatchPlan | None = None
        self._by_call = False  # op-major
        self._window = Window(memory, AHEAD)
        self._pins: dict[Group, Pin] = {}
        self._sizes: dict[PlanCode, PlanSizes] = {}
        self._lengths: dict[Any, Learned] = {}  # of what calls give, by their keys

    # -- the batch ---------------------------------------------------------------------------

    def start_all(self, instances: Sequence[Instance]) -> None:
        """Start instances and plan them."""
        for instance in instances:
            self._entries[instance.row] = _Entry(instance)
        for instance in instances:
            instance.start()
        with self._lock:
            entries = list(self._entries.values())
            jobs = {e.instance.job: None for e in entries}
            common: dict[bytes, array[int]] = {}
            for job in jobs:
                for prompt in self.sizes(job).common:
                    ids = prompt.stable_ids()
                    common[ids.tobytes()] = ids
            plan = BatchPlan([[r.ids for r, _, _ in e.held] for e in entries],
                             list(common.values()))
            for place, i in enumerate(plan.order):
                entries[i].place = place
                entries[i].groups = [*plan.groups_of([r.ids for r, _, _ in entries[i].held]),
                                     *plan.everywhere]
            self._by_call = self._all_fit(entries, plan)
            self._todo = [entries[i] for i in reversed(plan.order)]
            self._plan = plan
        self._fill()
        with self._lock:
            for entry in self._todo:  # lengths are learned meanwhile
                entry.need = None

    def _all_fit(self, entries: Sequence[_Entry], plan: BatchPlan) -> bool:
        left = self.memory - sum([g.own for g in plan.groups])
        for entry in entries:
            entry.need = self._need(entry)
            left -= entry.need.total
            if left < 0:
                return False
        return True

    def ended(self, row: int) -> None:
        """An instance is through."""
        with self._lock:
            entry = self._entries.pop(row, None)
            if entry is None:
                return
            if entry.charge:
                closed = self._window.leave(entry.charge, entry.groups)
            else:
                closed = self._window.skip(entry.groups)
            pins = [self._pins.pop(group) for group in closed if group in self._pins]
            if entry.pin is not None:
                pins.append(entry.pin)
        for pin in pins:
            self.target.unpin(pin)
        self._fill()

    def _fill(self) -> None:
        """Let instances go whose turn has come."""
        with self._lock:
            out: list[Request] = []
            while self._todo:
                entry = self._todo[-1]
                if not entry.instance.outputs.ended:
                    need = entry.need or self._need(entry)
                    if not self._window.enter(need.charge, entry.groups):
                        break
                    entry.charge = need.charge
                    rank = 0 if self._by_call else entry.place
                    entry.pin = self.target.pin((rank,), tokens=need.kept,
                                                peak=need.peak if need.kept else 0)
                    for request, call, length in entry.held:
                        self._place(entry, request, call, length)
                        out.append(request)
                    entry.held = []
                self._todo.pop()
        if out:
            self.target.submit(out)

    def _need(self, entry: _Entry) -> Need:
        shared = max([g.length for g in entry.groups], default=0)
        return self.sizes(entry.instance.job).need(entry.instance.slots, shared)

    # -- requests ----------------------------------------------------------------------------

    def submit(self, job: Job, requests: Sequence[Request]) -> None:
        """Pass the requests of one call on, now or later.  Their priority names the row and the
        call's step."""
        if not requests:
            return
        row, _, order = requests[0].priority
        with self._lock:
            entry = self._entries.get(row)
            if entry is not None:
                call = self.sizes(job).calls.get(order, _EARLY)
                length: int | None = 0
                if call.keep == ALL:
                    length = None
                elif call.keep is not None:
                    kept = entry.instance.slots[call.keep]  # not there: of an arm not taken
                    length = len(kept.token_ids()) if isinstance(kept, Prompt) else None
                if not entry.charge:
                    entry.held += [(request, call, length) for request in requests]
                    return
                for request in requests:
                    self._place(entry, request, call, length)
        self.target.submit(requests)

    def _place(self, entry: _Entry, request: Request, call: CallPlan, length: int | None) -> None:
        """Give a request its place and its pins, the instance's own first."""
        assert self._plan is not None and entry.pin is not None
        pins: list[tuple[Pin, int | None]] = [(entry.pin, length)]
        group = self._plan.group_of(request.ids)
        while group is not None:
            if group.uses > 0:
                pin = self._pins.get(group)
                if pin is None:
                    rank = 0 if self._by_call else group.place
                    pin = self._pins[group] = self.target.pin((rank,), tokens=group.own)
                pins.append((pin, group.length))
            group = group.parent
        request.pins = tuple(pins)
        if self._by_call:
            request.priority = (0, -call.height, entry.place)
        else:
            request.priority = (entry.place, -call.height)

    def cancel(self, requests: Sequence[Request]) -> None:
        """Cancel requests; those that were held go to the engine to end there."""
        with self._lock:
            gone = set(map(id, requests))
            out: list[Request] = []
            for row in {r.priority[0] for r in requests}:
                entry = self._entries.get(row)
                if entry is not None and entry.held:
                    out += [h[0] for h in entry.held if id(h[0]) in gone]
                    entry.held = [h for h in entry.held if id(h[0]) not in gone]
        self.target.cancel(requests)
        if out:
            self.target.submit(out)

    # -- what is known -----------------------------------------------------------------------

    def sizes(self, job: Job) -> PlanSizes:
        """The sizes of a job's code."""
        found = self._sizes.get(job.code)
        if found is None:
            found = self._sizes[job.code] = PlanSizes(
                job.code, job.tokenizer, lambda step: _bound(job, step), self._expected)
            for step in job.code.steps:
                if step.kind == "host":
                    self._lengths.setdefault(step.key, Learned(HOST_TEXT, 0.9))
                elif step.kind == "gen" and _bound(job, step) is None:
                    limit = job.gens[step.data[0]][0].max_tokens
                    guess = min(limit, max(32, min(256, limit // 4)))
                    self._lengths.setdefault(step.key, Learned(guess, 0.6))
        return found

    def _expected(self, step: Step) -> int:
        learned = self._lengths.get(step.key)
        return 0 if learned is None else learned.expected

    def learn(self, key: Any, value: Any) -> None:
        """Note what a call gave: tokens for a model call, bytes for another."""
        learned = self._lengths.get(key)
        if learned is None:
            return
        with self._lock:
            if not isinstance(value, Outcome):
                learned.add(len(utf8(value)) if isinstance(value, str) else 0)
            elif value.error is None:
                metas = value.meta if type(value.meta) is list else [value.meta]
                learned.add(sum([meta["completion_tokens"] for meta in metas]))


def dispatcher_of(backend: Any) -> Dispatcher | None:
    """What plans the batches of a backend, None if it takes no plans."""
    memory = getattr(backend, "plan_memory", None)
    return None if memory is None else Dispatcher(backend, memory)


def _bound(job: Job, step: Step) -> int | None:
    """A tight bound on the tokens of a gen, all samples together."""
    options, constraint = job.gens[step.data[0]]
    limit: int = options.max_tokens
    bound = step.data[1].most
    if bound is not None and bound <= limit:
        limit = bound
    elif limit > TIGHT and not (options.ignore_eos and constraint is None and not (
            options.stop or options.stop_regex or options.stop_token_ids)):
        return None
    return limit * options.n  # type: ignore[no-any-return]
