"""Where host calls run: on the caller's thread for one run, on a pool for a batch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue


class HostQueue:
    """Host calls that one thread makes, in the order they come."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def put(self, call: Callable[[], None]) -> None:
        self._queue.put(call)

    def close(self) -> None:
        self._queue.put(None)

    def drain(self) -> None:
        """Make calls until the queue is closed."""
        while (call := self._queue.get()) is not None:
            call()

    def drain_quietly(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            self.drain()


class HostPool:
    """Threads for the host calls of a batch, started with the first one."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def put(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="sglc-host")
            pool = self._pool
        pool.submit(call)

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
