"""Calls over HTTP that another thread can end: what waits for an answer then fails at once.

A call's connection is shut down, so the server sees that nobody waits any more.  Knows urllib3's
connections, but no requests.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from contextvars import ContextVar
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class Cut:
    """One call.  lock: of all calls whose connections are shared."""

    __slots__ = ("_connection", "_lock", "made")

    def __init__(self, lock: threading.Lock) -> None:
        self.made = False
        self._connection: Any = None
        self._lock = lock

    def make(self) -> None:
        """End the call, now or as soon as it begins.  Idempotent, from any thread."""
        with self._lock:
            self.made = True
            connection = self._connection
            # A kept connection may serve another call by now.
            if connection is not None and connection.call is self and connection.line is not None:
                with contextlib.suppress(OSError):  # it has ended by itself
                    # Not an SSLSocket's own: that would change what the other thread reads with.
                    socket.socket.shutdown(connection.line, socket.SHUT_RDWR)

    def takes(self, connection: Any) -> None:
        """The call goes on on this connection.  Raises ConnectionAbortedError if it has ended."""
        with self._lock:
            self._connection, connection.call = connection, self
            if self.made:
                raise ConnectionAbortedError("the call was given up")


CALL: ContextVar[Cut | None] = ContextVar("sglc_http_call", default=None)
"""The call that this thread makes."""


class _Cuttable:
    """A connection that knows whose call it serves."""

    call: Cut | None = None
    line: Any = None  # the socket, also while an answer that ends with it is still read
    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.line = self.sock
        self._taken()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._taken()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _taken(self) -> None:
        call = CALL.get()
        if call is not None:
            call.takes(self)


class _Http(_Cuttable, HTTPConnection):
    pass


class _Https(_Cuttable, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class CuttableManager(PoolManager):
    """urllib3's, of connections whose calls can be cut."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
