"""What clients are told when the serving process dies: by its parent, which holds their
connections too.

The child passes each connection on, and notes in a table that both map how far its answer has
come; the table outlives the child, however that ends.  Requests that have no answer yet are told to
come again (503, Retry-After), streams end with an error event, and an answer that is cut within a
message is cut off.  Knows no routes and no engine.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import tempfile
from typing import Any

from sglc.serve.problems import Problem

# How far the answer on a connection has come.
FREE, IDLE, ASKED, ANSWERING, STREAMING = range(5)
_SLOTS = 1024  # connections that are noted; others are only cut off
_DEAD = Problem(503, "the serving process died before the request was answered; it is being "
                "started again", code="engine_restarted")
_AGAIN = 2  # seconds


def _refusal() -> bytes:
    body = json.dumps(_DEAD.body()).encode()
    return (f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {_AGAIN}\r\nConnection: close\r\n\r\n"
            ).encode() + body


def _last_event() -> bytes:
    """The error as the last event of a chunked answer."""
    event = f"data: {json.dumps(_DEAD.body())}\n\n".encode()
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event)


class Notes:
    """The child's side: for its event loop."""

    def __init__(self, table: int, channel: int) -> None:
        self._table = mmap.mmap(table, _SLOTS)
        self._channel = socket.socket(fileno=channel)
        self._free = list(range(_SLOTS))

    def take(self, connection: Any) -> int | None:
        """A place for a connection, which the parent holds from now on; None if it cannot."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._table[slot] = IDLE
        try:
            socket.send_fds(self._channel, [slot.to_bytes(2, "little")], [connection.fileno()])
        except OSError:  # too many at a time for the parent
            self.leave(slot, None)
            return None
        return slot

    def mark(self, slot: int, state: int) -> None:
        """Note how far the answer has come."""
        self._table[slot] = state

    def leave(self, slot: int, connection: Any) -> None:
        """The connection ends: for the client too, though the parent still holds it."""
        self._table[slot] = FREE
        self._free.append(slot)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Custody:
    """The parent's side, for one child after another."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._file.truncate(_SLOTS)
        self._table = mmap.mmap(self._file.fileno(), _SLOTS)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        self._held: dict[int, int] = {}

    @property
    def descriptors(self) -> tuple[int, int]:
        """What the child's `Notes` are made of."""
        return self._file.fileno(), self._theirs.fileno()

    def fileno(self) -> int:
        """What can be read from when a connection was passed on."""
        return self._ours.fileno()

    def look(self) -> None:
        """Take what was passed on, and let go what has ended."""
        self._receive()
        for slot in [s for s in self._held if self._table[s] == FREE]:
            os.close(self._held.pop(slot))

    def settle(self) -> None:
        """The child is dead: tell all clients, and let them go."""
        self._receive()
        for slot, held in self._held.items():
            with socket.socket(fileno=held) as connection, contextlib.suppress(OSError):
                _tell(connection, self._table[slot])
        self._held.clear()
        self._table[:] = bytes(_SLOTS)

    def _receive(self) -> None:
        while True:
            try:
                data, found, _, _ = socket.recv_fds(self._ours, 2, 1)
            except OSError:  # nothing more
                return
            slot = int.from_bytes(data, "little")
            if slot in self._held:
                os.close(self._held.pop(slot))
            if found:
                self._held[slot] = found[0]


def _tell(connection: socket.socket, state: int) -> None:
    connection.setblocking(False)
    unread = False
    with contextlib.suppress(BlockingIOError):  # what is left unread would take the answer along
        while connection.recv(1 << 16):
            unread = True
    if state == ASKED or (state == IDLE and unread):
        connection.send(_refusal())
    elif state == STREAMING:
        connection.send(_last_event())
    connection.shutdown(socket.SHUT_WR)
