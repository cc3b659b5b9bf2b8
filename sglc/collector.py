"""Python's cyclic garbage collector, out of the way while many small objects are made.

IR is made of reference cycles that live on: each collection walks all of it and frees nothing,
which doubles the time that large programs take to compile.  Automata hold no cycles at all.  What
the rows of a batch make lives on until their states are dropped.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Without collections; they are back on afterwards if they were before.

    Blocks on several threads may overlap: then some of them run with collections.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Pace:
    """How often the collector comes, in threads that may overlap."""

    def __init__(self, objects: int) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._inside = 0
        self._before = (0, 0, 0)

    @contextmanager
    def slow(self) -> Iterator[None]:
        """With a collection for so many new objects at the earliest; as before after the last of
        blocks that overlap.  A pace that is slower still, and none at all, stay."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = gc.get_threshold()
                young, *older = self._before
                if 0 < young < self._objects:
                    gc.set_threshold(self._objects, *older)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and gc.get_threshold()[0] == self._objects:
                    gc.set_threshold(*self._before)


# The collector is one for the process.  Garbage in cycles of so many objects is some megabytes.
batches = Pace(50_000)
