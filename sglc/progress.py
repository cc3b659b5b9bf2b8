"""Bars that show how far a long job is.

They go to stderr.  A bar that nobody asked for is shown only where a person looks on (a terminal),
and not with SGLC_PROGRESS=off.  What is counted is the caller's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

_EVERY = 0.25  # seconds between looks at a job that does not count itself


def looked_at() -> bool:
    """Whether bars are shown that nobody asked for."""
    return os.environ.get("SGLC_PROGRESS", "").lower() != "off" and sys.stderr.isatty()


class Progress:
    """Counts finished rows, bytes or other units (tqdm's bar where it is installed).

    on: whether it is shown; None: where a person looks on.  what: stands in front of it.  delay:
    seconds before it is shown first.  leave: it stays when the job has ended.
    """

    def __init__(self, total: int, on: bool | None = None, unit: str = "row", *, what: str = "",
                 delay: float = 0.0, leave: bool = True) -> None:
        self.total, self.done, self.unit = total, 0, unit
        self.on = looked_at() if on is None else on
        self._bar: Any = None
        if self.on:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit=unit, unit_scale=unit == "B", desc=what or None,
                             delay=delay, leave=leave)

    def step(self, n: int = 1) -> None:
        """So many more are finished."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
        elif self.on and self.unit != "B":
            sys.stderr.write(f"\r{self.done}/{self.total} {self.unit}s")
            sys.stderr.flush()

    def reach(self, done: int) -> None:
        """So many are finished in all."""
        if done > self.done:
            self.step(done - self.done)

    def hide(self) -> None:
        """Make room for lines on stdout; it comes back with the next step."""
        if self._bar is not None:
            self._bar.clear()

    def say(self, *words: object) -> None:
        """Print a line on stdout, above the bar."""
        self.hide()
        print(*words, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def interrupted(self) -> None:
        """Say what an interrupt leaves."""
        sys.stderr.write(f"\ninterrupted: {self.done} of {self.total} rows finished; "
                         "the others hold SGLC506\n")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.on and self.unit != "B" and self.done:
            sys.stderr.write("\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        self.close()


class Watched:
    """The bar of a block that does not count itself: `done` says how much there is, and is asked
    four times a second.  Nothing is asked, and no thread started, where the bar is not shown."""

    def __init__(self, bar: Progress, done: Callable[[], int]) -> None:
        self._bar = bar
        self._done = done
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sglc-progress", daemon=True)

    def __enter__(self) -> Watched:
        if self._bar.on:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._bar.close()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self._bar.reach(self._done())
