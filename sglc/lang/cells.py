"""Values that are produced later: what a reader of `s["x"]` waits for, and text streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from sglc.runtime.typed import opened


class Cell:
    """A value set once, by any thread; readers block on the run's condition."""

    __slots__ = ("callbacks", "condition", "done", "error", "meta", "sink", "value")

    def __init__(self, condition: threading.Condition, sink: Sink | None = None) -> None:
        self.condition = condition
        self.done = False
        self.value: Any = None
        self.meta: Any = None
        self.error: BaseException | None = None
        self.sink = sink
        self.callbacks: list[Callable[[Cell], None]] = []

    def set(self, value: Any, meta: Any = None, error: BaseException | None = None) -> None:
        with self.condition:
            self.value, self.meta, self.error = value, meta, error
            self.done = True
            self.condition.notify_all()
            callbacks, self.callbacks = self.callbacks, []
        if self.sink is not None:
            self.sink.close(error)
        for callback in callbacks:
            callback(self)

    def fail(self, error: BaseException) -> None:
        self.set(None, error=error)

    def wait(self, timeout: float | None = None) -> Any:
        """The value; raises the producer's error, TimeoutError after `timeout` seconds."""
        return opened(self.settle(timeout))

    def settle(self, timeout: float | None = None) -> Any:
        """The same, but a value of a schema as the text it is made of."""
        if not self.done:
            with self.condition:
                if not self.condition.wait_for(lambda: self.done, timeout):
                    raise TimeoutError(f"no value within {timeout} s")
        if self.error is not None:
            raise self.error
        return self.value

    def when_done(self, callback: Callable[[Cell], None]) -> None:
        """Call `callback(self)` once it is set (at once if it is)."""
        with self.condition:
            if not self.done:
                self.callbacks.append(callback)
                return
        callback(self)


class Sink:
    """A stream of text pieces with one writer and any number of readers."""

    __slots__ = ("closed", "condition", "error", "pieces")

    def __init__(self, condition: threading.Condition) -> None:
        self.condition = condition
        self.pieces: list[str] = []
        self.closed = False
        self.error: BaseException | None = None

    def push(self, piece: str) -> None:
        if piece:
            with self.condition:
                self.pieces.append(piece)
                self.condition.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        with self.condition:
            self.closed, self.error = True, self.error or error
            self.condition.notify_all()

    def __iter__(self) -> Iterator[str]:
        """All pieces from the beginning, waiting for more; then the writer's error, if any."""
        i = 0
        while True:
            with self.condition:
                while i >= len(self.pieces) and not self.closed:
                    self.condition.wait()
                piece = self.pieces[i] if i < len(self.pieces) else None
            if piece is None:
                break
            i += 1
            yield piece
        if self.error is not None:
            raise self.error


