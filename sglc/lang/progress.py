"""The progress bar of a batch, or of another long job."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any


class Progress:
    """Counts finished rows (or other units) on stderr (tqdm when it is installed); silent when
    off."""

    def __init__(self, total: int, on: bool, unit: str = "row") -> None:
        self.total, self.done, self.on, self.unit = total, 0, on, unit
        self._bar: Any = None
        if on:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit=unit)

    def step(self) -> None:
        self.done += 1
        if self._bar is not None:
            self._bar.update(1)
        elif self.on:
            sys.stderr.write(f"\r{self.done}/{self.total} {self.unit}s")
            sys.stderr.flush()

    def interrupted(self) -> None:
        """Say what an interrupt leaves."""
        sys.stderr.write(f"\ninterrupted: {self.done} of {self.total} rows finished; "
                         "the others hold SGLC506\n")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.on:
            sys.stderr.write("\n")


class Waiting:
    """Says on stderr how long a block has taken so far, where a person looks on (a terminal)."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._say, name="sglc-waiting", daemon=True)

    def __enter__(self) -> Waiting:
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _say(self) -> None:
        start = time.monotonic()
        while not self._stop.wait(1.0):
            sys.stderr.write(f"\r{self.what}: {time.monotonic() - start:.0f} s ")
            sys.stderr.flush()
        sys.stderr.write("\r" + " " * (len(self.what) + 12) + "\r")
        sys.stderr.flush()
