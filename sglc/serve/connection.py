"""One connection of a client: how long its first header may take, and how many there may be.

aiohttp bounds idle connections and the size of headers; slow headers, clients that do not read
their answers, and the form of answers to malformed HTTP are this module's.  How far each answer
has come is noted for `custody.py`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sglc.serve.custody import ANSWERING, IDLE, STREAMING, Notes
from sglc.serve.problems import Problem


@dataclass(slots=True)
class Connections:
    """Limits, and how many are open now."""

    header_seconds: float = 10.0
    write_seconds: float = 30.0  # in which some of what waits must be read
    most: int = 1024
    open: int = 0


class Connection(RequestHandler):
    """aiohttp's connection with a deadline for the first header."""

    __slots__ = ("_connections", "_counted", "_notes", "_slot", "_socket", "_tail", "_timer",
                 "_unread", "_watched")

    def __init__(self, server: Any, connections: Connections, notes: Notes | None = None,
                 **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._connections = connections
        self._notes = notes
        self._slot: int | None = None
        self._socket: Any = None
        self._counted = False
        self._timer: asyncio.TimerHandle | None = None
        self._tail = b""
        self._watched: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._connections.open += 1
        self._counted = True
        if self._connections.open > self._connections.most:
            transport.abort()
            return
        self._timer = self._loop.call_later(self._connections.header_seconds, self._too_slow)
        if self._notes is not None:
            self._socket = transport.get_extra_info("socket")
            self._slot = self._notes.take(self._socket)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            tail = self._tail + data
            if b"\r\n\r\n" in tail:
                self._heard()
            else:
                self._tail = tail[-3:]
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._heard()
        if self._watched is not None:
            self._watched.cancel()
            self._watched = None
        if self._slot is not None and self._notes is not None:
            self._notes.leave(self._slot, self._socket)
            self._slot = None
        if self._counted:
            self._counted = False
            self._connections.open -= 1
        super().connection_lost(exc)

    def mark(self, state: int) -> None:
        """Note how far the answer has come."""
        if self._slot is not None and self._notes is not None:
            self._notes.mark(self._slot, state)

    def sent(self) -> None:
        """Note that a chunk of the answer was written: whole, if nothing of it waits here."""
        transport: Any = self.transport
        whole = transport is not None and not transport.get_write_buffer_size()
        self.mark(STREAMING if whole else ANSWERING)

    async def finish_response(self, *args: Any) -> Any:
        if self._watched is None and self.transport is not None:
            self._watch(self.transport)
        found = await super().finish_response(*args)
        self.mark(IDLE)
        return found

    def _watch(self, transport: Any) -> None:
        self._watched = self._loop.call_later(self._connections.write_seconds, self._look,
                                              transport)

    def _look(self, transport: Any) -> None:
        """Cut a client off of whose answers nothing was read since the last time.  The transport
        waits for it for ever, also when it is closed."""
        self._watched = None
        left = transport.get_write_buffer_size()
        if left and 0 < self._unread <= left:
            transport.abort()
        elif left:
            self._unread = left
            self._watch(transport)
        else:
            self._unread = 0

    def _heard(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tail = b""

    def _too_slow(self) -> None:
        self._timer = None
        self.force_close()

    def handle_error(self, request: Any, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> web.StreamResponse:
        """What is no HTTP gets a JSON error too; nothing of it is logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        problem = Problem(status, "the request is not valid HTTP" if status < 500
                          else "the server failed on this request",
                          code="bad_http" if status < 500 else "internal_error")
        response = web.Response(status=status, body=json.dumps(problem.body()).encode(),
                                content_type="application/json")
        response.force_close()
        return response
