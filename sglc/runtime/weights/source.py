"""What a model needs of a file of weights."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class WeightSource(Protocol):
    """Named tensors.  Names and row orders are Hugging Face's, whatever the file's are."""

    def names(self) -> Set[str]:
        """Every tensor in the file."""

    def read(self, name: str) -> Tensor:
        """One tensor, in the file's own floating type, or float32 where it was quantised."""
