"""The thread on which a backend waits for its API: one event loop, started when first needed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sglc.errors import Cancelled, EngineError

Done = Callable[[Any, "BaseException | None"], None]


class Handle:
    """Work that was handed to the worker."""

    __slots__ = ("_loop", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.task: asyncio.Task[Any] | None = None  # touched on the loop only

    def cancel(self) -> None:
        """Stop the work, if it still goes on; it ends with `Cancelled`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is the work
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Worker:
    """Runs coroutines on a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, work: Callable[[], Coroutine[Any, Any, Any]], done: Done) -> Handle:
        """Run `work()`; then `done(result, error)` is called, exactly once, on that thread.

        Raises EngineError SGLC503 if the worker is closed.
        """
        with self._lock:
            if self._closed:
                raise self._closed_error()
            loop = self._loop
            if loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name=self.name,
                                                daemon=True)
                self._thread.start()
            handle = Handle(loop)

            def begin() -> None:
                handle.task = loop.create_task(work())
                handle.task.add_done_callback(lambda task: done(*self._end(task)))

            loop.call_soon_threadsafe(begin)
        return handle

    def _end(self, task: asyncio.Task[Any]) -> tuple[Any, BaseException | None]:
        if task.cancelled():
            if self._closed:
                return None, self._closed_error()
            return None, Cancelled("SGLC506", "the call was cancelled before it was answered")
        error = task.exception()
        return (None, error) if error is not None else (task.result(), None)

    def _closed_error(self) -> EngineError:
        return EngineError("SGLC503", f"the backend {self.name} is closed")

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancel what goes on, run `last()` and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return

        async def end() -> None:
            me = asyncio.current_task()
            others = [t for t in asyncio.all_tasks() if t is not me]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            with contextlib.suppress(Exception):
                await last()
            await asyncio.sleep(0)  # the callbacks of the others
            loop.stop()

        asyncio.run_coroutine_threadsafe(end(), loop)
        if threading.current_thread() is not thread:
            thread.join(10)
            if not thread.is_alive():
                loop.close()
