"""A server in this process: listening, draining, watching the engine; on the main thread for the
command line, or on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from aiohttp import web

from sglc.errors import LanguageError
from sglc.serve.app import application
from sglc.serve.connection import Connection, Connections
from sglc.serve.custody import Notes
from sglc.serve.engines import open_backend
from sglc.serve.files import allow_files
from sglc.serve.opening import open_service
from sglc.serve.options import ServeOptions
from sglc.serve.problems import Problem
from sglc.serve.records import log_to_stderr
from sglc.serve.service import Service
from sglc.serve.waiting import within

_FAILURES = 8  # steps of the model, with none between that succeeds
_STOPPING = Problem(503, "the server stopped before the request finished", code="draining")


class Server:
    """A service on a port.  All methods are for its event loop.

    on_stall: called when the engine has made no progress for too long, or a part of it is lost.
    sock: a socket that listens already, in place of host and port.  notes: of what clients are to
    be told if this process dies.
    """

    def __init__(self, service: Service, host: str, port: int, *,
                 on_stall: Callable[[], None] | None = None,
                 sock: socket.socket | None = None, notes: Notes | None = None) -> None:
        self.service = service
        self.host = host
        self.port = port
        self.connections = Connections(service.limits.header_seconds, service.limits.write_seconds,
                                       service.limits.connections)
        self._on_stall = on_stall
        self._sock = sock
        self._notes = notes
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen.  Raises LanguageError SGLC004 if the port cannot be had."""
        limits = self.service.limits
        runner = web.AppRunner(application(self.service), handler_cancellation=True,
                               access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        loop = asyncio.get_running_loop()
        self._runner = runner

        def connection() -> Connection:
            return Connection(runner.server, self.connections, self._notes, loop=loop,
                              access_log=None, keepalive_timeout=limits.idle_seconds,
                              lingering_time=2.0)

        try:
            if self._sock is not None:
                self._server = await loop.create_server(connection, sock=self._sock)
            else:
                self._server = await loop.create_server(connection, self.host, self.port,
                                                        backlog=512)
        except OSError as error:
            await runner.cleanup()
            raise LanguageError("SGLC004", f"cannot listen on {self.host}:{self.port}",
                                why=str(error), fixes=("choose another --port",)) from None
        self.port = next(s.getsockname()[1] for s in self._server.sockets
                         if s.family in (socket.AF_INET, socket.AF_INET6))
        self._watch = asyncio.ensure_future(self._watchdog())

    async def stop(self, drain_seconds: float | None = None) -> None:
        """Take nothing new, let what runs finish for a while, then end it, and stop listening."""
        service = self.service
        service.draining = True
        seconds = service.limits.drain_seconds if drain_seconds is None else drain_seconds
        until = monotonic() + seconds
        while service.active and monotonic() < until:
            await asyncio.sleep(0.02)
        if service.active:
            service.records.write("drain_timeout", logging.WARNING, left=service.active)
            until = monotonic() + 2.0
            while service.active and monotonic() < until:
                service.abort_all(_STOPPING)
                await asyncio.sleep(0.02)
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await service.pictures.stop()

    async def _watchdog(self) -> None:
        """Notice an engine that has work and does none."""
        service = self.service
        seen, since, failed = -1, monotonic(), 0
        period = min(1.0, service.limits.stall_seconds / 4)
        while True:
            await asyncio.sleep(period)
            if getattr(getattr(service.backend.core, "runner", None), "lost", False):
                self._give_up("engine_lost", "a process of the model has ended")
                continue
            steps = await self._steps()
            passes, failures = (seen, failed) if steps is None else steps
            if passes != seen:
                seen, since, failed = passes, monotonic(), failures
                service.stalled = False
            elif failures - failed >= _FAILURES:
                self._give_up("engine_failing", "every step of the model fails",
                              steps=failures - failed)
                failed = failures
            elif not service.gate.inside:
                since = monotonic()
                service.stalled = False
            elif monotonic() - since > service.limits.stall_seconds:
                self._give_up("engine_stalled", "the engine makes no progress",
                              seconds=round(monotonic() - since, 1))

    def _give_up(self, code: str, why: str, **facts: Any) -> None:
        """The engine is of no use any more: end what runs and, where the process is ours, it."""
        service = self.service
        if service.stalled:
            return
        service.stalled = True
        service.records.write(code, logging.CRITICAL, **facts)
        service.abort_all(Problem(503, why, code=code, headers={"Retry-After": "2"}))
        if self._on_stall is not None:
            self._on_stall()

    async def _steps(self) -> tuple[int, int] | None:
        """Steps of the model so far, and those that failed; None if the engine does not even
        say."""
        service = self.service
        try:
            stats = await within(
                service.in_pool(service.control, service.backend.stats), 5.0)
        except (asyncio.TimeoutError, RuntimeError):
            return None
        if service.trace is not None:
            service.trace.counter("kv tokens", {
                "in use": stats.kv_in_use, "cached": stats.kv_cached, "free": stats.kv_free})
        return int(stats.forward_passes), int(stats.failed_steps)


def serve(options: ServeOptions, sock: socket.socket | None = None, restarts: int = 0,
          say: Callable[[str], None] | None = None, notes: Notes | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; the exit code.  A second signal ends at once.

    say: told where the server is, then "" every second (for `keeper.py`, as sock, restarts and
    notes).
    """
    log_to_stderr(options.log_level)
    allow_files()
    backend = open_backend(options)
    try:
        service = open_service(options, backend)
        service.restarts = restarts
        try:
            return asyncio.run(_main(service, options, sock, say, notes))
        finally:
            service.close()
    finally:
        backend.close()


async def _main(service: Service, options: ServeOptions, sock: socket.socket | None,
                say: Callable[[str], None] | None, notes: Notes | None) -> int:
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    def stalled() -> None:
        faulthandler.dump_traceback(sys.stderr)
        asyncio.get_running_loop().call_later(1.0, os._exit, 1)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    server = Server(service, options.host, options.port, on_stall=stalled, sock=sock,
                    notes=notes)
    await server.start()
    where = f"sglc: serving {service.name} on {server.url}"
    if say is None:
        print(where, flush=True)
        await stop.wait()
    else:
        say(where)
        while not stop.is_set():
            say("")
            with contextlib.suppress(asyncio.TimeoutError):
                await within(stop.wait(), 1.0)
    service.records.write("draining", active=service.active)
    await server.stop()
    return 0


class BackgroundServer:
    """A server on a thread of its own.  The backend is its owner's."""

    def __init__(self, service: Service, host: str = "127.0.0.1", port: int = 0) -> None:
        self.service = service
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.server: Any = None
        self._thread = threading.Thread(target=self._run, args=(host, port), name="sglc-serve",
                                        daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    @property
    def url(self) -> str:
        return str(self.server.url)

    def _run(self, host: str, port: int) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self.server = Server(self.service, host, port)
            self._loop.run_until_complete(self.server.start())
        except BaseException as error:
            self._error = error
            self._ready.set()
            return
        self._ready.set()
        self._loop.run_forever()
        with contextlib.suppress(RuntimeError):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Drain and stop.  Idempotent."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(
            self.server.stop(drain_seconds), self._loop).result(drain_seconds + 30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self.service.close()
