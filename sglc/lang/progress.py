"""The progress bar of a batch."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Counts finished rows on stderr (tqdm when it is installed); silent when off."""

    def __init__(self, total: int, on: bool) -> None:
        self.total, self.done, self.on = total, 0, on
        self._bar: Any = None
        if on:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit="row")

    def step(self) -> None:
        self.done += 1
        if self._bar is not None:
            self._bar.update(1)
        elif self.on:
            sys.stderr.write(f"\r{self.done}/{self.total} rows")
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
