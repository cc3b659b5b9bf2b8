"""Server-sent events: an answer that begins with its first event, so that what fails before it is
an ordinary error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from aiohttp import HttpVersion11, web

from sglc.serve.connection import Connection
from sglc.serve.context import CONTEXT
from sglc.serve.custody import ANSWERING
from sglc.serve.problems import Problem
from sglc.serve.waiting import within


def framed(payloads: Iterable[Any]) -> str:
    """Events with JSON payloads."""
    return "".join([f"data: {json.dumps(p)}\n\n" for p in payloads])


class EventStream:
    """One streamed answer."""

    def __init__(self, request: web.Request, write_seconds: float) -> None:
        self._request = request
        self._seconds = write_seconds
        self.response: web.StreamResponse | None = None

    async def send(self, *payloads: Any) -> None:
        """Events with JSON payloads, written together.  A client that does not read for too
        long is given up (ConnectionError)."""
        await self.write(framed(payloads))

    async def end(self) -> web.StreamResponse:
        """The closing event."""
        await self.write("data: [DONE]\n\n")
        return await self._close()

    async def fail(self, problem: Problem) -> web.StreamResponse:
        """The error as the last event; where nothing was sent yet, it is raised."""
        if self.response is None:
            raise problem
        await self.send(problem.body())
        return await self._close()

    async def _close(self) -> web.StreamResponse:
        assert self.response is not None
        self._mark(ANSWERING)
        await self.response.write_eof()
        return self.response

    def _mark(self, state: int) -> None:
        if isinstance(self._request.protocol, Connection):
            self._request.protocol.mark(state)

    async def write(self, text: str) -> None:
        """Events as `framed` gives them."""
        if self.response is None:
            self.response = web.StreamResponse(headers={
                "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store",
                "X-Accel-Buffering": "no", **self._request[CONTEXT].headers})
            if self._request.version >= HttpVersion11:
                self.response.enable_chunked_encoding()  # as it would be; said, it can be asked for
            await self.response.prepare(self._request)
        self._mark(ANSWERING)
        try:
            await within(self.response.write(text.encode()), self._seconds)
        except asyncio.TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client does not read") from None
        if self.response.chunked and isinstance(self._request.protocol, Connection):
            self._request.protocol.sent()
