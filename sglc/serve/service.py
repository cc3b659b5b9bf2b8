"""What the handlers share: the backend, the limits, the pools, the counters.

One `Service` per server; it knows no routes.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from sglc.config import RunOptions
from sglc.serve.chat_prompt import ChatPrompts
from sglc.serve.flight import Flight, Gate
from sglc.serve.metrics import Metrics
from sglc.serve.pictures import PictureLimits, Pictures
from sglc.serve.problems import Problem
from sglc.serve.records import Records
from sglc.serve.room import Room
from sglc.serve.telemetry import Telemetry
from sglc.serve.trace_file import TraceFile
from sglc.serve.waiting import within

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts; see `options.py` for what users set."""

    body_bytes: int = 4 << 20
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    request_seconds: float = 600.0
    constraint_seconds: float = 10.0
    answer_seconds: float = 5.0  # of the engine about itself
    drain_seconds: float = 30.0
    stall_seconds: float = 60.0
    connections: int = 1024
    sequences: int = 512  # running and waiting
    logprobs: int = 1 << 23  # that are asked for at a time, of all requests
    bodies_bytes: int = 512 << 20  # of all that are held at a time
    pictures: PictureLimits = field(default_factory=PictureLimits)


@dataclass(eq=False)
class Service:
    """A backend and everything around it.

    name: the model's name in answers; path: as it was given.  keys: API keys (none: open to
    whoever reaches the port); admin_key: needed beside for what changes the server.
    hosts: the Host headers that are answered, None for any.
    """

    backend: Any
    name: str
    path: str
    limits: Limits = field(default_factory=Limits)
    keys: tuple[str, ...] = ()
    admin_key: str | None = None
    hosts: frozenset[str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # shown by /get_server_info
    records: Records = field(default_factory=Records)
    trace: TraceFile | None = None
    stream_interval: int = 1
    telemetry: Telemetry | None = None

    def __post_init__(self) -> None:
        self.gate = Gate(self.limits.sequences)
        self.metrics = Metrics(self.name, self)
        self.bodies = Room(max(self.limits.bodies_bytes, self.limits.body_bytes), "bodies",
                           413, "body_too_large")
        self.logprobs = Room(self.limits.logprobs, "log-probabilities", 400, "too_many_logprobs")
        self.pictures = Pictures(self.backend.tokenizer, self.limits.pictures)
        self.chats = ChatPrompts(self.backend.tokenizer, self.backend.template)
        self._most_text = self.context_length * max(
            map(len, self.backend.tokenizer.byte_table), default=1)
        self.document: dict[str, Any] | None = None  # the OpenAPI document, when it was asked for
        self.programs: Any = None  # see `programs.py`
        # With several keys nobody sees in another's times what that one has asked.
        self.spaces: tuple[int | None, ...] = tuple(
            [self.backend.new_space(apart=True) for _ in self.keys] if len(self.keys) > 1
            else [None] * len(self.keys))
        self.flights: set[Any] = set()
        self.active = 0  # requests that are being answered, /health and the like apart
        self.draining = False
        self.stalled = False
        self.restarts = 0  # of the process, so far
        self.began = monotonic()
        self.created = int(time.time())
        self.work = ThreadPoolExecutor(4, thread_name_prefix="sglc-work")
        self.compiling = ThreadPoolExecutor(2, thread_name_prefix="sglc-compile")
        self.control = ThreadPoolExecutor(2, thread_name_prefix="sglc-control")

    @property
    def context_length(self) -> int:
        return int(self.backend.core.runner.context_length)

    @staticmethod
    def new_id(prefix: str) -> str:
        """A fresh id; ids of clients are never used as keys."""
        return f"{prefix}-{secrets.token_hex(12)}"

    async def in_pool(self, pool: ThreadPoolExecutor, fn: Callable[..., T], *args: Any) -> T:
        """`fn(*args)` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            pool, functools.partial(fn, *args))

    async def made(self, fn: Callable[..., T], *args: Any, heavy: bool) -> T:
        """`fn(*args)`, in a thread where it takes long: the loop has others to serve."""
        return await self.in_pool(self.work, fn, *args) if heavy else fn(*args)

    def hold_logprobs(self, prompts: Iterable[tuple[RunOptions, int]], until: ExitStack) -> bool:
        """Whether log-probabilities are asked for, and so answers are large; room is kept for
        them until `until` is closed.

        prompts: the options of each one, and how much of it is scored (tokens, or characters).
        Raises Problem 400 or 429.
        """
        most, context = 0, self.context_length
        for o, scored in prompts:
            if o.return_logprob or o.top_logprobs_num:
                most += o.n * (min(o.max_tokens, context) * (1 + o.top_logprobs_num)
                               + min(scored, context))
        if most:
            self.logprobs.hold(most, until)
        return most > 0

    def check_length(self, text: str) -> None:
        """Raises Problem 400 for a text that has too many tokens however it is split: it is not
        worth splitting."""
        if len(text) > self._most_text:
            raise Problem(400, f"the text has {len(text)} characters, which are more tokens than "
                          f"the {self.context_length} that the model takes",
                          code="context_length_exceeded")

    async def told(self, fn: Callable[[], T]) -> T:
        """What the engine says of itself.  Raises Problem 503 if it does not answer."""
        try:
            return await within(self.in_pool(self.control, fn), self.limits.answer_seconds)
        except asyncio.TimeoutError:
            raise Problem(503, "the engine does not answer", code="engine_stalled",
                          headers={"Retry-After": "5"}) from None

    async def compiled(self, fn: Callable[[], T]) -> T:
        """What a compilation gives, within its time.  Raises Problem 400, or 503 where others'
        compilations take all the time."""
        began, started = monotonic(), False

        def run() -> T:
            nonlocal started
            started = True
            return fn()

        seconds = self.limits.constraint_seconds
        try:
            return await within(self.in_pool(self.compiling, run), seconds)
        except asyncio.TimeoutError:
            if started:
                raise Problem(400, f"compiling took longer than {seconds:g} s",
                              code="too_complex") from None
            raise Problem(503, "too much is being compiled now", code="busy",
                          headers={"Retry-After": "2"}) from None
        finally:
            self.metrics.grammar_seconds.observe(monotonic() - began)

    @contextmanager
    def flight(self, deadline: float, space: int | None = None) -> Iterator[Flight]:
        """A flight that is closed, and so cancelled, when the block is left."""
        flight = Flight(self.backend, self.gate, self.control, deadline, self.stream_interval,
                        self.metrics.queue.observe, space)
        self.flights.add(flight)
        try:
            yield flight
        finally:
            flight.close()
            self.flights.discard(flight)

    def abort_all(self, problem: Problem) -> None:
        """End everything that runs."""
        for flight in list(self.flights):
            flight.abort(problem)

    def close(self) -> None:
        """Stop the threads; the backend is its owner's."""
        for pool in (self.work, self.compiling, self.control):
            pool.shutdown(wait=False, cancel_futures=True)
        self.pictures.close()
        if self.trace is not None:
            self.trace.close()
        if self.telemetry is not None:
            self.telemetry.close()
