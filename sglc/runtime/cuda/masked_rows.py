"""What rows that draw by masks and nothing else upload each step, in memory that stays.

Making tensors, and views of them, takes the host longer than what it writes into them.  Draws and
constraints are not known here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import torch

from sglc.kernels.draws import Draws
from sglc.runtime.cuda.staging import staging

Places = tuple[Sequence[int], Sequence[int], Sequence[int]]  # table, state, after
_TURNS = 4  # a launcher has two steps under way at most, each with one upload


class MaskedRows:
    """Of R rows: `draws`, without filters and penalties, and int32 (R,) `table`, `state` and
    `after` (see `MaskRows`), on the device; each `upload` overwrites them, in stream order."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._rows = rows
        self._staged = staging(_TURNS * 5 * rows, device).zero_().view(_TURNS, 5 * rows).unbind()
        self._numbers = [one.numpy()[:3 * rows].reshape(3, rows) for one in self._staged]
        self._places = [one.numpy()[3 * rows:].data.cast("B").cast("i") for one in self._staged]
        self._noisy = [False] * _TURNS
        self._turn = 0
        self._there = torch.zeros(5 * rows, dtype=torch.int64, device=device)
        key, index, heat = self._there[:3 * rows].view(3, rows).unbind()
        none = torch.zeros(rows, dtype=torch.int32, device=device)
        ones = torch.ones(rows, dtype=torch.float64, device=device)
        self.draws = Draws(heat.view(torch.float64), key, index, none, ones, ones)
        self.table, self.state, self.after, _ = self._there[3 * rows:].view(torch.int32).view(
            4, rows).unbind()

    def upload(self, noise: np.ndarray | None, places: Places | None) -> None:
        """Let the device have these, after what was launched before.  noise: from `plain_draws`;
        None if no row has any.  places: None if they are not looked at."""
        turn = self._turn = (self._turn + 1) % _TURNS
        if noise is not None or self._noisy[turn]:
            self._numbers[turn][:] = 0 if noise is None else noise
            self._noisy[turn] = noise is not None
        if places is not None:
            table, state, after = places
            self._places[turn][:3 * self._rows] = array("i", [*table, *state, *after])
        self._there.copy_(self._staged[turn], non_blocking=True)
