"""Counts and shows what is read of a file of weights, and how fast.

The bar goes to stderr, only for loads of more than a few seconds and only on a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from sglc.progress import Progress
from sglc.runtime.weights.int4_checkpoint import int4_of
from sglc.runtime.weights.source import Part, WeightSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sglc.kernels.int4 import Int4Matrix

_SILENT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How much of the files was read, and in how many seconds, conversion and layout included."""

    bytes: int
    seconds: float

    @property
    def gb_per_second(self) -> float:
        return self.bytes / 1e9 / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        return (f"{self.bytes / 1e9:.2f} GB in {self.seconds:.2f} s "
                f"({self.gb_per_second:.2f} GB/s)")


class MeteredWeights:
    """A `WeightSource` over another, for a `with` block; `report` is there after it."""

    def __init__(self, source: WeightSource) -> None:
        self._source = source
        self.path, self.mapped = source.path, source.mapped
        self.report = LoadReport(0, 0.0)
        self._bytes = 0
        self._started = 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> MeteredWeights:
        self._started = time.perf_counter()
        total = sum(self._source.n_bytes(name) for name in self._source.names())
        self._bar = Progress(total, unit="B", what="weights", delay=_SILENT_SECONDS, leave=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        self.report = LoadReport(self._bytes, time.perf_counter() - self._started)

    def names(self) -> Set[str]:
        return self._source.names()

    def read(self, name: str) -> Tensor:
        self._count(name)
        return self._source.read(name)

    def _count(self, name: str) -> None:
        size = self._source.n_bytes(name)
        self._bytes += size
        if self._bar is not None:
            self._bar.step(size)

    def int4(self, name: str, part: Part | None = None,
             device: torch.device | None = None) -> Int4Matrix | None:
        """As `Int4Checkpoint.int4`."""
        matrix = int4_of(self._source, name, part, device)
        if matrix is not None:
            self._count(name)
        return matrix

    def place(self, name: str) -> str:
        return self._source.place(name)

    def n_bytes(self, name: str) -> int:
        return self._source.n_bytes(name)
