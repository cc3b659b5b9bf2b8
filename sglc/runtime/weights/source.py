"""What a model needs of a file of weights."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows or columns (from, up to) of a tensor of the shape `whole`."""

    whole: tuple[int, ...]
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """A view; a tensor of another shape as it is, for the reader to refuse."""
        if tuple(tensor.shape) != self.whole:
            return tensor
        if self.rows is not None:
            tensor = tensor[slice(*self.rows)]
        return tensor if self.columns is None else tensor[:, slice(*self.columns)]

    @property
    def share(self) -> float:
        """How much of the tensor it is."""
        spans = zip((self.rows, self.columns), self.whole, strict=False)
        return math.prod((b - a) / n for (a, b), n in ((s, n) for s, n in spans if s is not None))


class WeightSource(Protocol):
    """Named tensors.  Names and row orders are Hugging Face's, whatever the file's are.

    path: the file or folder.  mapped: what `read` gives may be the file itself, mapped, which the
        caller copies and does not keep; else it is the caller's own.
    """

    path: Path
    mapped: bool

    def names(self) -> Set[str]:
        """Every tensor in the file."""

    def read(self, name: str, part: Part | None = None) -> Tensor:
        """One tensor, in the file's own floating type, or float32 where it was quantised; only
        `part` of it, if given."""

    def place(self, name: str) -> str:
        """The file that holds the tensor, for errors."""

    def n_bytes(self, name: str) -> int:
        """How many bytes of the file the tensor takes."""
