"""What the handlers share: the backend, the limits, the pools, the counters.

One `Service` per server; it knows no routes.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from sglc.serve.chat_prompt import ChatPrompts
from sglc.serve.flight import Flight, Gate
from sglc.serve.metrics import Metrics
from sglc.serve.problems import Problem
from sglc.serve.records import Records
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
    drain_seconds: float = 30.0
    stall_seconds: float = 60.0
    connections: int = 1024
    sequences: int = 512  # running and waiting


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
        self.chats = ChatPrompts(self.backend.tokenizer, self.backend.template)
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

    @staticmethod
    def new_id(prefix: str) -> str:
        """A fresh id; ids of clients are never used as keys."""
        return f"{prefix}-{secrets.token_hex(12)}"

    async def in_pool(self, pool: ThreadPoolExecutor, fn: Callable[..., T], *args: Any) -> T:
        """`fn(*args)` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            pool, functools.partial(fn, *args))

    async def compiled(self, fn: Callable[[], T]) -> T:
        """What a compilation gives, within its time.  Raises Problem 400 or 503."""
        began = monotonic()
        try:
            return await within(
                self.in_pool(self.compiling, fn), self.limits.constraint_seconds)
        except asyncio.TimeoutError:
            raise Problem(400, "compiling took longer than "
                          f"{self.limits.constraint_seconds:g} s", code="too_complex") from None
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
        if self.trace is not None:
            self.trace.close()
        if self.telemetry is not None:
            self.telemetry.close()
