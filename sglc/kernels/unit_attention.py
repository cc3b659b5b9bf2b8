"""Attention by work list on the GPU: its device memory, and the launches of one layer.

The torch reference is `paged_attention_torch`.  Rows and their meaning stay on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from sglc.kernels.attention_shape import (
    MIDDLE,
    NARROW,
    PLAIN,
    UNIT,
    WIDE,
    Grid,
    Limits,
    Scores,
    Shape,
    Units,
)
from sglc.kernels.hopper_attention_cuda import HopperAttentionForm, hopper_attention
from sglc.kernels.triton_units import merge_kernel, units_kernel

_MANY = 128  # tokens from which a merging program takes many heads


@dataclass(frozen=True, slots=True)
class Launch:
    """How a class of units is compiled: keys a block, warps, stages of the pipeline."""

    keys: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """Launches by class; whether kernels of one step overlap (programmatic launch, Hopper on);
    whether partial results are kept in the queries' type instead of float32; whether there is one
    form of each kernel, whatever the number of tokens; whether wide units that need neither window
    nor cap take CUDA C++ (`hopper_attention`)."""

    classes: tuple[Launch, Launch, Launch] = (Launch(64, 2, 3), Launch(32, 4, 5),
                                              Launch(64, 4, 3))
    overlap: bool = True
    half_partials: bool = True
    one_form: bool = False
    cuda: bool = False


def tuning(dtype: torch.dtype, device: torch.device | str, dim: int = 128) -> Tuning:
    """What was measured best on Hopper at head size 128, and what fits for larger heads."""
    cuda = torch.device(device).type == "cuda"
    overlap = cuda and torch.cuda.get_device_capability(device)[0] >= 9
    if dtype is torch.float32:
        return Tuning((Launch(32, 8, 1),) * 3, overlap, False)
    if dim > 128:  # twice the bytes a key, and the sums of twice as many columns
        return Tuning((Launch(32, 4, 3), Launch(32, 4, 2), Launch(32, 8, 2)), overlap)
    return Tuning(overlap=overlap)


def default_shape(heads: int, kv_heads: int, dim: int, dtype: torch.dtype,
                  multiprocessors: int = 132, cuda: bool = False) -> Shape:
    """Tiles for the kernels on a device of so many multiprocessors; cuda: as in `Tuning`."""
    n = multiprocessors
    if dtype is torch.float32:
        return Shape(heads, kv_heads, dim, (16, 32, 64), 32, (2 * n, n, n))
    return Shape(heads, kv_heads, dim, programs=(4 * n, 2 * n, n if cuda else 2 * n))


class UnitAttention:
    """Work lists in device memory, and room for partial results; used by every layer of a step.

    form: of wide units in CUDA C++, where the tuning asks for it; None is the one that is usual.
    A CUDA graph that holds the call runs whatever was loaded before its replay.
    """

    def __init__(self, shape: Shape, limits: Limits, dtype: torch.dtype,
                 device: torch.device | str, tune: Tuning | None = None,
                 form: HopperAttentionForm | None = None) -> None:
        self.shape, self.limits = shape, limits
        self.tune = tune or tuning(dtype, device)
        grid = limits.grid
        sizes = (UNIT * grid.narrow, UNIT * grid.middle, UNIT * grid.wide, limits.entries,
                 limits.entries, limits.entries, grid.merged + 1)
        ends = np.cumsum([-(-n // 16) * 16 for n in sizes])
        self._starts = [0, *ends[:-1].tolist()]
        on_gpu = torch.device(device).type == "cuda"
        self.host = torch.zeros(int(ends[-1]), dtype=torch.int32, pin_memory=on_gpu)
        self.buffer = torch.zeros(int(ends[-1]), dtype=torch.int32, device=device)
        self._sections = [self.buffer[a:] for a in self._starts]
        self._partial = torch.empty(limits.parts, shape.heads, shape.dim, device=device,
                                    dtype=dtype if self.tune.half_partials else torch.float32)
        self._sums = torch.empty(limits.parts, shape.heads, device=device)
        self._form = None
        if self.tune.cuda:
            if shape.tiles[WIDE] > 128:
                raise ValueError(f"wide units of {shape.tiles[WIDE]} rows, and a kernel for 128")
            self._form = form or HopperAttentionForm(dtype, shape.dim, shape.kv_heads, shape.group)

    def write(self, units: Units, to: np.ndarray) -> None:
        """The work list as the kernels read it, into int32 memory of the size of `buffer`."""
        if not units.fits(self.limits):
            raise ValueError(f"a work list larger than {self.limits}")
        arrays = (*(u.reshape(-1) for u in units.by_class), units.token, units.part,
                  units.high, units.pointers)
        ends = [*self._starts[1:], len(to)]
        for i, (start, end, array) in enumerate(zip(self._starts, ends, arrays, strict=True)):
            to[start:start + len(array)] = array
            if i < 3:  # units of no queries do nothing
                to[start + len(array):end] = 0
        # Tokens that the graph has beyond the step's have no partial results.
        to[self._starts[6] + len(units.pointers):] = units.parts

    def load(self, units: Units) -> None:
        """Copy a work list to the device, in stream order.

        The staging memory is one: wait for the copy before the next `load`.
        """
        self.write(units, self.host.numpy())
        self.buffer.copy_(self.host, non_blocking=True)

    def __call__(self, q: Tensor, pool: Tensor, table: Tensor, out: Tensor,
                 grid: Grid | None = None, how: Scores = PLAIN) -> Tensor:
        """out = attention of the loaded work list; tokens that no unit names keep what is there.

        q, out: contiguous (T, heads, D).  pool: contiguous (slots, 2, kv_heads, D), type of q.
        table: int32 slots.  grid: what to launch, covering the loaded list's; None launches all
        that the limits allow.  how: the layer's window, scale and cap.
        """
        shape, tune = self.shape, self.tune
        grid = grid or self.limits.grid
        *units, token, part, high, pointers = self._sections
        block_d = triton.next_power_of_2(shape.dim)
        counts = (grid.narrow, grid.middle, grid.wide)
        pdl = {"launch_pdl": True} if tune.overlap else {}
        # The longest programs first.
        for i, kind in enumerate([k for k in (WIDE, MIDDLE, NARROW) if counts[k]]):
            if kind == WIDE and self._form and not how.window and not how.cap:
                hopper_attention(self._form, q, pool, table, out, self._partial, self._sums,
                                 units[kind], (token, part, high), counts[kind],
                                 how.scale or shape.dim ** -0.5, tune.overlap)
                continue
            launch = tune.classes[kind]
            units_kernel[(counts[kind] * shape.kv_heads,)](
                q, pool, table, out, self._partial, self._sums, units[kind], token, part, high,
                how.scale or shape.dim ** -0.5, how.window, GROUP=shape.group, HEADS=shape.kv_heads,
                D=shape.dim, BLOCK_D=block_d, BLOCK_M=shape.tiles[kind], BLOCK_N=launch.keys,
                PACKED=kind == NARROW, UNIT=UNIT, WIDE_INDEX=pool.numel() >= 2**31,
                PRECISION="ieee" if q.dtype is torch.float32 else "tf32",
                STAGES=launch.stages, WINDOWED=how.window > 0, CAP=how.cap,
                OVERLAP=tune.overlap, FIRST=i == 0, num_warps=launch.warps, **pdl)
        if grid.merged:
            many = grid.merged >= _MANY or tune.one_form
            block_h = min(8 if many else 2, triton.next_power_of_2(shape.heads))
            merge_kernel[(grid.merged, triton.cdiv(shape.heads, block_h))](
                out, self._partial, self._sums, pointers, HEADS=shape.heads, D=shape.dim,
                BLOCK_D=block_d, BLOCK_H=block_h, AHEAD=4 if many else 8, OVERLAP=tune.overlap,
                num_warps=4 if many else 1, **pdl)
        return out
