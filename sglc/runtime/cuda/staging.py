"""One step's integers, side by side: copied to the device at once, and read there by name.

The layout depends on how many tokens and rows there is room for, so that a captured graph finds
everything where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglc.kernels.fsm import NO_TABLE


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a step of T tokens and K rows of output reads on the device, int64.

    ids, positions, slots, at: (T,); an id of -1 - i is what row i of the step before drew; `at`
    is where a token's slot belongs in the page table.  outputs: (K,), indices into T.
    draws: (4, K), see `simple_draws`.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    at: Tensor
    outputs: Tensor
    draws: Tensor

    @staticmethod
    def size(tokens: int, rows: int) -> int:
        """Integers of a step."""
        return 4 * tokens + 5 * rows

    @classmethod
    def of(cls, whole: Tensor, tokens: int, rows: int) -> Inputs:
        """Views of memory of `size(tokens, rows)` integers or more."""
        token, row = 4 * tokens, 4 * tokens + rows
        ids, positions, slots, at = whole[:token].view(4, tokens)
        return cls(ids, positions, slots, at, whole[token:row],
                   whole[row:row + 4 * rows].view(4, rows))


def lay_out(to: np.ndarray, tokens: int, rows: int, spare: int, ids: np.ndarray,
            positions: np.ndarray, slots: np.ndarray, at: np.ndarray, outputs: np.ndarray,
            draws: np.ndarray | None) -> None:
    """Write a step into `to`, as `Inputs.of` reads it; what there is too much room for becomes
    tokens that are stored nowhere (`spare` is the page table's spare entry)."""
    n, k = len(ids), len(outputs)
    head = to[:4 * tokens].reshape(4, tokens)
    for line, values, rest in zip(head, (ids, positions, slots, at), (0, 0, -1, spare),
                                  strict=True):
        line[:n] = values
        line[n:] = rest
    tail = to[4 * tokens:4 * tokens + 5 * rows].reshape(5, rows)
    tail[0, :k] = outputs
    tail[0, k:] = 0
    tail[1:4] = 0
    tail[4] = NO_TABLE
    if draws is not None:
        tail[1:, :k] = draws


def staging(count: int, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Host memory to copy from; it may be dropped, and is not used again, while a copy runs."""
    return torch.empty(count, dtype=dtype, pin_memory=device.type == "cuda")
