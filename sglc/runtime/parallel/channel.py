"""Records between rank 0 and a worker: an integer and some integer arrays, over a socket.

A socket pair wakes who waits, holds back who is too fast, and says at once when the other process
has ended, however it did.  What the records mean is not known here.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence

import numpy as np

_ARRAYS = 14  # at most, in a record
_HEAD = (2 + _ARRAYS) * 8  # bytes: the kind, how many arrays, and their lengths


class Channel:
    """One end.  Sending and receiving may be two threads' work, each one thread's at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, kind: int, *arrays: np.ndarray) -> None:
        """Hand over a record of int64 arrays.  Raises OSError if the other end is closed."""
        assert len(arrays) <= _ARRAYS
        head = np.zeros(2 + _ARRAYS, np.int64)
        head[:2] = kind, len(arrays)
        head[2:2 + len(arrays)] = [len(a) for a in arrays]
        self._socket.sendall(b"".join(
            [head.tobytes(), *(np.ascontiguousarray(a, np.int64).tobytes() for a in arrays)]))

    def receive(self) -> tuple[int, list[np.ndarray]]:
        """The next record.  Raises EOFError if the other end is closed, or OSError."""
        head = np.frombuffer(self._exactly(_HEAD), np.int64)
        sizes = head[2:2 + int(head[1])]
        data = np.frombuffer(self._exactly(8 * int(sizes.sum())), np.int64)
        return int(head[0]), np.split(data, sizes.cumsum()[:-1]) if len(sizes) else []

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def _exactly(self, n: int) -> bytearray:
        out = bytearray(n)
        view = memoryview(out)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                raise EOFError("the other process has ended")
            view = view[got:]
        return out


def hung_up(channels: Sequence[Channel], seconds: float) -> bool:
    """Wait until the other end of some channel is closed, but so long at most; whether it was."""
    poll = select.poll()
    for channel in channels:
        if channel.fileno() < 0:
            return True
        poll.register(channel.fileno(), 0)  # nothing but that, and errors
    return bool(poll.poll(seconds * 1000))


def from_text(text: str) -> np.ndarray:
    """A text as an array."""
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)


def to_text(array: np.ndarray) -> str:
    return array.astype(np.uint8).tobytes().decode("utf-8", "replace")
