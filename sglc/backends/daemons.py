"""Threads that wait for others' answers, and do not keep the process from ending.

`ThreadPoolExecutor` joins its threads at the interpreter's exit: a server that is silent would
hold up Ctrl-C for as long as its answer is waited for.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class DaemonPool(Executor):
    """Up to `most` daemon threads, started as they are needed."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0
        self._shut = False
        weakref.finalize(self, self._work.put, None)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn` in a thread.  Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._work.put((future, fn, args, kwargs))
            if not self._idle.acquire(blocking=False) and self._started < self._most:
                self._started += 1
                threading.Thread(target=_serve, args=(self._work, self._idle), daemon=True,
                                 name=f"{self._name}_{self._started}").start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take nothing new; never waits.  cancel_futures: of what has not begun."""
        with self._lock:
            self._shut = True
            left: list[_Work] = []
            while cancel_futures:
                try:
                    found = self._work.get_nowait()
                except Empty:
                    break
                if found is not None:
                    left.append(found)
            self._work.put(None)
        for future, *_ in left:
            future.cancel()


def _serve(work: SimpleQueue[_Work | None], idle: threading.Semaphore) -> None:
    """One thread; None ends it, and the next one."""
    while True:
        found = work.get()
        if found is None:
            work.put(None)
            return
        future, fn, args, kwargs = found
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
        del found, future, fn, args, kwargs  # nothing is kept while it waits
        idle.release()
