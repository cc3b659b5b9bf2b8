"""The engine's thread: requests in, steps round and round, answers out.

One lock guards the scheduler's state.  The thread holds it while it prepares a step and while it
takes its outcome, not while the model runs nor while callbacks run; other threads take it to
submit, to read counts and to free memory.  The thread sleeps when there is nothing to do, and
no exception ends it before `stop`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sglc.errors import Cancelled, EngineError, SglcError
from sglc.runtime.admission import Admission
from sglc.runtime.counters import Counters
from sglc.runtime.launch import Launcher, Outcome
from sglc.runtime.pins import Pin
from sglc.runtime.policies.base import Policy
from sglc.runtime.radix import Node
from sglc.runtime.recording import Recording
from sglc.runtime.request import Request, Result
from sglc.runtime.results import result_of
from sglc.runtime.scheduler import Scheduler
from sglc.runtime.sequence import Sequence as Running
from sglc.runtime.step import Step

_log = logging.getLogger("sglc.runtime")

Event = tuple[Callable[[Any], None], Any]  # a callback and what to tell it


class EngineLoop:
    """Everything of an engine but its public face, so that the thread keeps only this alive."""

    def __init__(self, admission: Admission, launcher: Launcher, *, kv_tokens: int,
                 max_tokens: int, max_running: int, radix_cache: bool,
                 policy: Callable[[], Policy], max_choice_tokens: int = 0,
                 ride_tokens: int = 0) -> None:
        self._admission = admission
        self._launcher = launcher
        self._radix_cache = radix_cache
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._rest = threading.Condition(self._lock)
        self._inbox: list[Request] = []
        self._owed: dict[Request, None] = {}  # taken in, and not answered
        self._arrivals = 0
        self._thread: threading.Thread | None = None
        self._idle = True
        self._cancels = False
        self._closing = False
        self._closed = False
        self._events: list[Event] = []
        self._new_scheduler: Callable[[Policy, Counters], Scheduler] = partial(
            Scheduler, kv_tokens, max_tokens, max_running, self._leave,
            max_choice_tokens=max_choice_tokens, ride_tokens=ride_tokens)
        self._policy = policy
        self.scheduler = self._new_scheduler(policy(), Counters())
        self._global = self.scheduler.kv.tree.new_root()
        self._spaces: dict[int, Node] = {}
        self._space_count = 0
        self._drops: list[int] = []
        self._recording: Recording | None = None

    # -- from any thread ---------------------------------------------------------------------

    def submit(self, requests: Sequence[Request]) -> None:
        with self._lock:
            if not self._closing:
                self._inbox.extend(requests)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="sglc-engine",
                                                    daemon=True)
                    self._thread.start()
                self._wake.notify()
                return
        for request in requests:
            self._call(request.on_done, Result(finish_reason="abort", error=_stopped()))

    def cancel(self, requests: Sequence[Request]) -> None:
        with self._lock:
            for request in requests:
                request.cancelled = True
            self._cancels = True

    def new_space(self, apart: bool = False) -> int:
        with self._lock:
            self._space_count += 1
            if apart or not self._radix_cache:
                self._spaces[self._space_count] = self.scheduler.kv.tree.new_root()
            return self._space_count

    def drop_space(self, space: int) -> None:
        with self._lock:
            self._drops.append(space)
            if not self._inbox:  # else after what was submitted before has been taken in
                self._drop()

    def flush(self) -> int:
        with self._lock:
            return self.scheduler.kv.flush()

    def unpin(self, pin: Pin, free: bool) -> None:
        with self._lock:
            self.scheduler.kv.unpin(pin, free=free)

    def use(self, policy: Callable[[], Policy]) -> bool:
        """Schedule by another policy, from an empty cache; false, and nothing is done, while
        requests are there."""
        with self._lock:
            if self._inbox or self.scheduler.busy:
                return False
            self._policy = policy
            self._renew()
            return True

    def record(self, recording: Recording | None) -> None:
        with self._lock:
            self._recording = recording

    def read(self, reader: Callable[[Scheduler, Launcher], Any]) -> Any:
        """What `reader` makes of a consistent state."""
        with self._lock:
            return reader(self.scheduler, self._launcher)

    def load(self) -> tuple[int, int]:
        with self._lock:
            queues = self.scheduler.queues
            return len(queues.running), len(queues.waiting) + len(self._inbox)

    def wait_idle(self, timeout: float | None) -> bool:
        with self._lock:
            return self._rest.wait_for(lambda: self._idle and not self._inbox, timeout)

    def stop(self, timeout: float | None = None) -> None:
        """End all requests with SGLC503 and the thread; waits for it unless it is the caller."""
        with self._lock:
            self._closing = True
            self._wake.notify()
            thread = self._thread
            if thread is None and not self._closed:
                self._closed = True
                self._launcher.runner.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._turns()
        except Exception as error:
            _log.critical("the engine failed for good", exc_info=error)
        self._end()

    def _end(self) -> None:
        """Answer everybody, and close the model."""
        with self._lock:
            self._closing = True
            self._owed.update(dict.fromkeys(self._inbox))
            self._inbox = []
            try:
                self.scheduler.fail_all(_stopped)
            except Exception as error:
                _log.error("the engine's last requests failed", exc_info=error)
            self._answer_owed(_stopped())
        self._tell()
        with self._lock:
            self._closed = True
            self._launcher.runner.close()
            self._idle = True
            self._rest.notify_all()

    def _turns(self) -> None:
        """Step after step, until the engine is closed."""
        while True:
            step = None
            with self._lock:
                while not (self._inbox or self.scheduler.busy or self._closing):
                    self._idle = True
                    self._rest.notify_all()
                    self._wake.wait()
                self._idle = False
                if self._closing:
                    break
                try:
                    self._admit()
                    step = self.scheduler.prepare()
                except Exception as error:  # a defect of the engine: nobody may hang for it
                    self._panic(error)
            self._tell()
            if step is not None:
                self._step(step)
                self._tell()

    def _step(self, step: Step) -> None:
        try:
            outcome = self._launcher.launch(step)
        except Exception as error:
            _log.warning("a model step failed", exc_info=error)
            with self._lock:
                self.scheduler.counters.failed += 1
                try:
                    self.scheduler.abort([step], partial(_failed, error))
                except Exception as second:
                    self._panic(second)
            return
        with self._lock:
            try:
                self._take(step, outcome)
            except Exception as error:
                self._panic(error)

    def _take(self, step: Step, outcome: Outcome) -> None:
        self.scheduler.complete(step, outcome)
        for seq, _ in step.samples:
            on_text = seq.request.on_text
            if on_text is not None and not seq.finished and seq.watcher is not None:
                text = seq.watcher.ready()
                if text:
                    self._events.append((on_text, text))

    def _admit(self) -> None:
        """Take in what was submitted, and end what was cancelled."""
        inbox, self._inbox = self._inbox, []
        self._owed.update(dict.fromkeys(inbox))
        for request in inbox:
            if request.cancelled:
                self._answer_error(request, _cancelled())
                continue
            private = request.space is None and not self._radix_cache
            try:
                root = self._root(request.space)
                seq = self._admission.open(request, self._arrivals, root, private)
            except SglcError as error:
                self._answer_error(request, error)
                continue
            except Exception as error:  # a constraint or a tokenizer failed
                self._answer_error(request, _failed(error))
                continue
            self._arrivals += 1
            self.scheduler.counters.requests += not (
                request.continues or request.kind == "prefill")
            self.scheduler.counters.forced += seq.forced
            for one in self._members(seq):
                if one.finished:
                    if private:
                        self.scheduler.kv.tree.drop(one.root)
                    self.scheduler.ended(one)
                else:
                    self.scheduler.queues.add(one)
        self._drop()
        if self._cancels or any(s.request.cancelled for s in self.scheduler.queues.running):
            self._cancels = False
            self.scheduler.cancelled(_cancelled)

    def _members(self, seq: Running) -> list[Running]:
        """The sequences of a request that wait from now on."""
        group = seq.group
        if group is None or (self.scheduler.policy.exact and not (seq.private or seq.finished)):
            return [seq]
        others = group.others(len(seq.ids))
        if seq.private:
            for other in others:
                other.root = other.node = self.scheduler.kv.tree.new_root()
        return [seq, *others]

    def _drop(self) -> None:
        for space in self._drops:
            root = self._spaces.pop(space, None)
            if root is not None:
                self.scheduler.kv.tree.drop(root)
        self._drops.clear()

    def _root(self, space: int | None) -> Node:
        root = None if space is None else self._spaces.get(space)
        if root is not None:
            return root
        if self._radix_cache:
            return self._global
        if space is None:
            return self.scheduler.kv.tree.new_root()
        raise EngineError("SGLC507", f"there is no sharing space {space}")

    # -- answers -----------------------------------------------------------------------------

    def _leave(self, seq: Running) -> None:
        request = seq.request
        if request.kind == "ride":
            return  # nobody asked for it
        if self._recording is not None:
            self._recording.left(seq)
        result = result_of(seq, self._admission.table)
        if seq.group is not None:
            whole = seq.group.ended(seq.number, result)
            if whole is None:
                return
            result = whole
        if request.on_text is not None and seq.watcher is not None and result.error is None:
            text = seq.watcher.rest(result.text)
            if text:
                self._events.append((request.on_text, text))
        self._answer(request, result)

    def _answer(self, request: Request, result: Result) -> None:
        """Its one answer: a second one, of a scheduler that failed meanwhile, is none."""
        if request in self._owed:
            del self._owed[request]
            self._events.append((request.on_done, result))

    def _answer_error(self, request: Request, error: SglcError) -> None:
        self.scheduler.kv.used(request)
        self._answer(request, _aborted(request, error))

    def _answer_owed(self, error: SglcError) -> None:
        """End whatever is left, without a look at the scheduler."""
        for request in list(self._owed):
            self._answer(request, _aborted(request, error))

    def _tell(self) -> None:
        """Run the callbacks that are due, without the lock."""
        while self._events:
            events, self._events = self._events, []
            for callback, value in events:
                self._call(callback, value)

    def _call(self, callback: Callable[[Any], None], value: Any) -> None:
        try:
            callback(value)
        except BaseException as error:
            _log.error("a callback of a request failed", exc_info=error)

    def _panic(self, error: Exception) -> None:
        """The engine's own state may be broken: fail everything and start from nothing."""
        _log.error("the engine failed and starts anew", exc_info=error)
        self.scheduler.counters.failed += 1
        self._answer_owed(_failed(error))
        self._renew()

    def _renew(self) -> None:
        """A new scheduler: an empty pool, and the spaces that there are."""
        self.scheduler = self._new_scheduler(self._policy(), self.scheduler.counters)
        self._global = self.scheduler.kv.tree.new_root()
        self._spaces = {space: self.scheduler.kv.tree.new_root() for space in self._spaces}


def _aborted(request: Request, error: SglcError) -> Result:
    return Result(finish_reason="abort", prompt_tokens=len(request.ids), error=error)


def _stopped() -> EngineError:
    return EngineError("SGLC503", "the engine was closed before the request finished")


def _cancelled() -> Cancelled:
    return Cancelled("SGLC506", "the request was cancelled")


def _failed(error: Exception) -> EngineError:
    wrapped = EngineError("SGLC503", f"a model step failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
