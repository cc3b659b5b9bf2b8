"""Attention of one step on the device: from rows to launches.

Shared runs of keys are looked for again only when the rows are others.  What a step is for is not
known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sglc.kernels.attention_shape import Grid, Limits, Units
from sglc.kernels.attention_units import plan_units, shared_runs
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.runtime.cuda.model import Attend
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.models.config import LlamaConfig

if TYPE_CHECKING:
    from sglc.kernels.prefix_tree import Shared
    from sglc.kernels.unit_attention import UnitAttention


class UnitSteps:
    """Attention by work lists, with device memory for each size of step."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> None:
        from sglc.kernels.unit_attention import default_shape

        count = (torch.cuda.get_device_properties(device).multi_processor_count
                 if device.type == "cuda" else 4)
        self.shape = default_shape(config.heads, config.kv_heads, config.head_dim, dtype, count)
        self._dtype = dtype
        self._device = device
        self._sizes: dict[int, UnitAttention] = {}
        self._outs: dict[int, Tensor] = {}
        self._last: tuple[Any, ...] = ()
        self._runs: list[Shared] = []

    def nbytes(self, tokens: int) -> int:
        """Device memory for steps of so many tokens."""
        limits = Limits.for_tokens(tokens, self.shape)
        return (limits.parts + tokens) * self.shape.heads * (self.shape.dim * 4 + 4)

    def plan(self, rows: Rows, table: PageTable, size: int) -> Units | None:
        """The work list of a step, for device memory of `size` tokens; None if it does not fit.
        """
        decode = rows.total == len(rows.starts)
        key = (decode, table.version, rows.offsets.tobytes())
        if not decode or key != self._last:
            self._runs = shared_runs(rows, table.host, self.shape)
            self._last = key
        try:
            return plan_units(rows, self._runs, self.shape, self._at(size).limits)
        except ValueError:
            return None

    def load(self, units: Units, size: int) -> None:
        """Copy a work list to the device, in stream order."""
        attention = self._at(size)
        if self._device.type == "cpu":
            attention.load(units)
            return
        staged = torch.empty(len(attention.host), dtype=torch.int32, pin_memory=True)
        attention.write(units, staged.numpy())
        attention.buffer.copy_(staged, non_blocking=True)

    def attend(self, table: Tensor, size: int, tokens: int, grid: Grid) -> Attend:
        """Attention by the list that is loaded when it runs, for queries of `tokens` tokens."""
        attention = self._at(size)
        shape = self.shape
        out = self._outs.get(size)
        if out is None:  # what no unit writes must be numbers
            out = self._outs[size] = torch.zeros(size, shape.heads, shape.dim,
                                                 dtype=self._dtype, device=self._device)
        mine = out[:tokens]
        return lambda q, pool: attention(q, pool, table, mine, grid)

    def full(self, units: Units, size: int) -> Grid:
        """A grid for every list of this size that has units of the same classes."""
        grid, most = units.grid, self._at(size).limits.grid
        return Grid(*((room if used else 0) for used, room in (
            (grid.narrow, most.narrow), (grid.middle, most.middle), (grid.wide, most.wide),
            (grid.merged, most.merged))))

    def _at(self, size: int) -> UnitAttention:
        from sglc.kernels.unit_attention import UnitAttention

        found = self._sizes.get(size)
        if found is None:
            found = self._sizes[size] = UnitAttention(
                self.shape, Limits.for_tokens(size, self.shape), self._dtype, self._device)
        return found


def attend_torch(table: PageTable, rows: Rows) -> Attend:
    """Attention of these rows by the reference."""
    return lambda q, pool: paged_attention_torch(q, pool, table.device, rows).to(q.dtype)
