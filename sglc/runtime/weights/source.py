"""What a model needs of a file of weights."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class WeightSource(Protocol):
    """Named tensors.  Names and row orders are Hugging Face's, whatever the file's are.

    path: the file or folder.  mapped: what `read` gives may be the file itself, mapped, which the
        caller copies and does not keep; else it is the caller's own.
    """

    path: Path
    mapped: bool

    def names(self) -> Set[str]:
        """Every tensor in the file."""

    def read(self, name: str) -> Tensor:
        """One tensor, in the file's own floating type, or float32 where it was quantised."""

    def place(self, name: str) -> str:
        """The file that holds the tensor, for errors."""

    def n_bytes(self, name: str) -> int:
        """How many bytes of the file the tensor takes."""
