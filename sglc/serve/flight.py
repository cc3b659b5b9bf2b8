"""Model requests on behalf of one HTTP request: from the event loop to the engine and back.

A flight is loaded and launched in a thread; its events arrive on the loop.  Closing it cancels
whatever has not ended, so that nothing runs for a client that is gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

from sglc.runtime.request import Request, Result
from sglc.serve.problems import Problem, problem_of
from sglc.serve.waiting import within


class Gate:
    """How many model requests there may be, running and waiting together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0
        self._lock = threading.Lock()

    def enter(self, n: int) -> None:
        """Take n places.  Raises Problem 429, or 400 if there never are so many."""
        if n > self.most:
            raise Problem(400, f"one request asks for {n} sequences, more than the {self.most} "
                          "that the server takes at all", code="too_many_sequences")
        with self._lock:
            self._check(n)
            self.inside += n

    def check(self) -> None:
        """Raises Problem 429 if there is no place now: before a body is read for nothing."""
        self._check(1)

    def _check(self, n: int) -> None:
        if self.inside + n > self.most:
            raise Problem(429, "the queue is full", code="queue_full",
                          headers={"Retry-After": "1"})

    def leave(self, n: int = 1) -> None:
        with self._lock:
            self.inside -= n


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one request."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """One request has ended."""

    index: int
    result: Result


Event = Piece | Done


class Flight:
    """The model requests of one HTTP request.

    deadline: `monotonic()` time at which it is given up (Problem 504).  interval: how many pieces
    of text make an event; the first one is an event of its own.  queued: told how long each
    request waited for the engine.  space: the sharing space of all of them.
    """

    def __init__(self, backend: Any, gate: Gate, control: Executor, deadline: float,
                 interval: int = 1,
                 queued: Callable[[float], None] = lambda seconds: None,
                 space: int | None = None) -> None:
        self.requests: list[Request] = []
        self.results: dict[int, Result] = {}
        self.deadline = deadline
        self._backend = backend
        self._gate = gate
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | Problem] = asyncio.Queue()
        self._lock = threading.Lock()
        self._launched = False
        self._closed = False
        self._interval = interval
        self._queued = queued
        self._space = space
        self._submitted = 0.0

    @property
    def vocab_size(self) -> int:
        return int(self._backend.tokenizer.vocab_size)

    # -- in a thread ----------------------------------------------------------------------
    def add(self, make: Callable[[Callable[[Result], None], Callable[[str], None] | None],
                                 Request], *, stream: bool = False) -> None:
        """Load a request: `make(on_done, on_text)`."""
        index = len(self.requests)

        def on_done(result: Result) -> None:
            self._gate.leave()
            self._post(Done(index, result))

        held: list[str] = []  # what is held back at the end is in the result
        pieces = 0

        def on_text(text: str) -> None:
            nonlocal pieces
            held.append(text)
            pieces += 1
            if pieces == 1 or len(held) >= self._interval:
                self._post(Piece(index, "".join(held)))
                held.clear()

        request = make(on_done, on_text if stream else None)
        request.space = self._space
        self.requests.append(request)

    def launch(self) -> None:
        """Submit what was loaded.  Raises Problem 429 if there is no room."""
        with self._lock:
            if self._closed:
                return
            self._gate.enter(len(self.requests))
            self._launched = True
        self._submitted = perf_counter()
        self._backend.submit(self.requests)

    def _post(self, event: Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            return

    # -- on the loop ----------------------------------------------------------------------
    async def events(self) -> AsyncIterator[list[Event]]:
        """What happens, in order, as much at a time as there is; ends with the last request.

        Raises the first error of a request as a Problem, Problem 504 at the deadline.
        """
        while len(self.results) < len(self.requests):
            left = self.deadline - monotonic()
            try:
                found = [await within(self._queue.get(), max(0.0, left))]
            except asyncio.TimeoutError:
                raise Problem(504, "the request took longer than it may",
                              code="deadline_exceeded") from None
            while not self._queue.empty():
                found.append(self._queue.get_nowait())
            events: list[Event] = []
            for event in found:
                if isinstance(event, Problem):
                    raise event
                if isinstance(event, Done):
                    if event.result.error is not None:
                        raise problem_of(event.result.error)
                    self.results[event.index] = event.result
                    if event.result.started:
                        self._queued(event.result.started - self._submitted)
                events.append(event)
            yield events

    async def wait(self) -> list[Result]:
        """All results, in order."""
        async for _ in self.events():
            pass
        return self.ended()

    def ended(self) -> list[Result]:
        """All results, in order, once there are all."""
        return [self.results[i] for i in range(len(self.requests))]

    def abort(self, problem: Problem) -> None:
        """End it with a problem."""
        self._queue.put_nowait(problem)

    def close(self) -> None:
        """Cancel what has not ended.  Idempotent."""
        with self._lock:
            self._closed = True
        if self._launched and len(self.results) < len(self.requests):
            for request in self.requests:
                request.cancelled = True
            self._control.submit(self._backend.cancel, self.requests)
