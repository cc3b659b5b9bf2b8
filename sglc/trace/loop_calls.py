"""Host calls of async bodies, made one by one on an event loop that lives as long as the body.

Tasks that the program starts go on while a later host call or `await` is running, as they do in
the eager interpreter, where the body's own reads block the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class EventLoop:
    """An event loop that runs one step after the other, all in one context."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.new_event_loop()
        self.context = contextvars.copy_context()

    def step(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine; what it raises closes the loop."""
        try:
            return self._somewhere(coroutine)
        except BaseException:
            self.close()
            raise

    def _somewhere(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(coroutine)
        with ThreadPoolExecutor(1) as pool:  # this thread's loop is running: it can run no other
            return pool.submit(self._run, coroutine).result()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self.loop is not None
        try:  # a task in this very context, where Python can (3.11)
            task = self.loop.create_task(coroutine, context=self.context)  # type: ignore[call-arg]
        except TypeError:
            task = self.context.run(self.loop.create_task, coroutine)
        return self.loop.run_until_complete(task)

    def close(self) -> None:
        """Cancel what still runs, as `asyncio.run` does at its end."""
        loop, self.loop = self.loop, None
        if loop is None:
            return
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            for work in (asyncio.gather(*tasks, return_exceptions=True) if tasks else None,
                         loop.shutdown_asyncgens(), loop.shutdown_default_executor()):
                if work is not None:
                    self._finish(loop, work)
        finally:
            loop.close()

    @staticmethod
    def _finish(loop: asyncio.AbstractEventLoop, work: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop.run_until_complete(work)
            return
        with ThreadPoolExecutor(1) as pool:
            pool.submit(loop.run_until_complete, work).result()


def call_on(loop: EventLoop, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`fn(...)` while the loop runs."""
    async def step() -> Any:
        return fn(*args, **kwargs)

    return loop.step(step())


def await_on(loop: EventLoop, value: Any) -> Any:
    """`await value`."""
    async def step() -> Any:
        return await value

    return loop.step(step())


def close_loop(loop: EventLoop) -> None:
    """The end of the body."""
    loop.close()
