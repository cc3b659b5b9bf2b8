"""Attention of one step on the device: from rows to launches.

Shared runs of keys are looked for again only when the rows are others.  What a step is for is not
known here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.attention_shape import Grid, Limits, Scores, Units
from sglc.kernels.attention_units import plan_units, shared_runs
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.runtime.cuda.layers import Attend
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.models.config import LlamaConfig

if TYPE_CHECKING:
    from sglc.kernels.prefix_tree import Shared
    from sglc.kernels.unit_attention import UnitAttention


_PIECES = 8  # that a context is cut into, if all are cut alike
_LEAST = 256  # keys of such a piece


class UnitSteps:
    """Attention by work lists, with device memory for each size of step.

    fixed: every token's keys are cut at the same positions and nothing is shared, so that its
    result does not depend on the rest of the step.  cuda: units of many queries take CUDA C++
    where it has a form for the model (there are none if `fixed`); raises ModelError (SGLC504) on
    devices that it does not work on.
    """

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device,
                 fixed: bool = False, cuda: bool = False) -> None:
        from sglc.kernels.unit_attention import default_shape, tuning

        count = (torch.cuda.get_device_properties(device).multi_processor_count
                 if device.type == "cuda" else 4)
        cuda = cuda and not fixed and _has_form(config, dtype, device)
        self.shape = default_shape(config.heads, config.kv_heads, config.head_dim, dtype, count,
                                   cuda)
        self._tune = replace(tuning(dtype, device, config.head_dim), one_form=fixed, cuda=cuda)
        length = config.context_length
        piece = max(_LEAST, 1 << (-(-length // _PIECES) - 1).bit_length())
        self._piece = piece if fixed else 0
        self._hows = scores_of(config)
        windows = [how.window for how in self._hows]
        self._window = max(windows) if all(windows) else 0  # outside of which no layer reads
        self._pieces = -(-length // piece)
        self._dtype = dtype
        self._device = device
        self._sizes: dict[int, UnitAttention] = {}
        self._outs: dict[int, Tensor] = {}
        self._last: tuple[Any, ...] = ()
        self._runs: list[Shared] = []

    def nbytes(self, tokens: int) -> int:
        """Device memory for steps of so many tokens."""
        limits = self._limits(tokens)
        return (limits.parts + tokens) * self.shape.heads * (self.shape.dim * 4 + 4)

    def plan(self, rows: Rows, table: PageTable, size: int) -> Units | None:
        """The work list of a step, for device memory of `size` tokens; None if it does not fit.
        """
        if self._piece:
            units = plan_units(rows, (), self.shape, chunk=self._piece, window=self._window)
            return units if units.fits(self._at(size).limits) else None
        decode = rows.total == len(rows.starts)
        key = (decode, table.version, rows.offsets.tobytes())
        if not decode or key != self._last:
            self._runs = shared_runs(rows, table.host, self.shape, self._window)
            self._last = key
        try:
            return plan_units(rows, self._runs, self.shape, self._at(size).limits,
                              window=self._window)
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
        hows = self._hows
        return lambda q, pool, layer: attention(q, pool, table, mine, grid, hows[layer])

    def full(self, units: Units, size: int) -> Grid:
        """A grid for every list of this size that has units of the same classes."""
        grid, most = units.grid, self._at(size).limits.grid
        if self._piece:  # there is room for many more units than most steps have
            many = min(most.middle, 1 << (grid.middle - 1).bit_length())
            return Grid(0, many, 0, most.merged if grid.merged else 0)
        return Grid(*((room if used else 0) for used, room in (
            (grid.narrow, most.narrow), (grid.middle, most.middle), (grid.wide, most.wide),
            (grid.merged, most.merged))))

    def _limits(self, tokens: int) -> Limits:
        return (Limits.of_pieces(tokens, self._pieces) if self._piece
                else Limits.for_tokens(tokens, self.shape))

    def _at(self, size: int) -> UnitAttention:
        from sglc.kernels.unit_attention import UnitAttention

        found = self._sizes.get(size)
        if found is None:
            found = self._sizes[size] = UnitAttention(
                self.shape, self._limits(size), self._dtype, self._device, self._tune)
        return found


def _has_form(config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether CUDA C++ attends in any layer; raises ModelError where it does not work at all."""
    from sglc.kernels.hopper_attention_cuda import HopperAttentionForm, takes_attention

    form = HopperAttentionForm(dtype, config.head_dim, config.kv_heads,
                               config.heads // config.kv_heads)
    why = takes_attention(form, device)
    if why:
        raise ModelError("SGLC504", 'kernels="cuda" does not work here',
                         why=f"of its attention: {why}", fixes=('use kernels="auto"',))
    return form.exists and not all(how.window or how.cap for how in scores_of(config))


def attend_torch(table: PageTable, rows: Rows, config: LlamaConfig) -> Attend:
    """Attention of these rows by the reference."""
    hows = scores_of(config)
    return lambda q, pool, layer: paged_attention_torch(
        q, pool, table.device, rows, hows[layer]).to(q.dtype)


def scores_of(config: LlamaConfig) -> list[Scores]:
    """How each layer attends; a window that is never full is none."""
    windows = (config.window(n) for n in range(config.layers))
    return [Scores(w if w < config.context_length else 0, config.attention_cap,
                   config.attention_scale) for w in windows]
