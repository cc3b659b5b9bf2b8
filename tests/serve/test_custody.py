"""What clients are told when the process that serves them is dead."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sglc.serve.custody import ANSWERING, ASKED, FREE, IDLE, STREAMING, Custody, Notes

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Unix passes sockets on")


@contextmanager
def both() -> Iterator[tuple[Custody, Notes]]:
    """(the parent's side, the child's with descriptors of its own)."""
    custody = Custody()
    table, channel = (os.dup(fd) for fd in custody.descriptors)
    yield custody, Notes(table, channel)


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=5)
        return client, listening.accept()[0]


def everything(client: socket.socket) -> bytes:
    out = b""
    while piece := client.recv(65536):
        out += piece
    return out


@pytest.mark.parametrize(("state", "unread", "told"), [
    (IDLE, b"", ""), (IDLE, b"GET / HTTP/1.1\r\n", "whole"), (ASKED, b"", "whole"),
    (ASKED, b"the rest of a body", "whole"), (ANSWERING, b"", ""), (STREAMING, b"", "event"),
    (FREE, b"", "")])
def test_what_a_client_is_told(state: int, unread: bytes, told: str) -> None:
    with both() as (custody, notes):
        client, accepted = connected()
        slot = notes.take(accepted)
        assert slot is not None
        custody.look()
        client.sendall(unread)
        notes.mark(slot, state)
        accepted.close()  # as the death of the process does
        custody.settle()
        said = everything(client).decode()
        client.close()
    if not told:
        assert said == ""
        return
    if told == "whole":
        head, _, body = said.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 503 ") and "Retry-After: " in head
        assert f"Content-Length: {len(body)}" in head
    else:
        size, _, rest = said.partition("\r\n")
        assert rest[int(size, 16):] == "\r\n0\r\n\r\n" and rest.startswith("data: ")
        body = rest[6:int(size, 16)]
    assert json.loads(body)["error"]["code"] == "engine_restarted"


def test_connections_that_end_are_let_go() -> None:
    with both() as (custody, notes):
        open_before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else 0
        for _ in range(50):
            client, accepted = connected()
            slot: Any = notes.take(accepted)
            notes.leave(slot, accepted)
            accepted.close()
            assert client.recv(1) == b""  # the end, though the parent may hold it still
            client.close()
        custody.look()
        if open_before:
            assert len(os.listdir("/proc/self/fd")) <= open_before
        client, accepted = connected()
        slot = notes.take(accepted)
        notes.mark(slot, ASKED)
        accepted.close()
        custody.settle()
        assert everything(client).startswith(b"HTTP/1.1 503 ")
        client.close()


def test_what_is_too_much_is_not_held() -> None:
    """A parent that does not look is not waited for."""
    with both() as (custody, notes):
        pairs = [connected() for _ in range(20)]
        taken = [notes.take(accepted) for _ in range(100) for _, accepted in pairs]
        assert None in taken and taken[0] is not None
        custody.settle()
        for pair in pairs:
            for end in pair:
                end.close()
