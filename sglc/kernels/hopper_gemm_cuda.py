"""Products of many rows on Hopper (compute capability 9.0), in CUDA C++.

With a gate, gate and up of the same columns lie in one tile, so that their product is made in
registers.  What is added to the residual may come with sums of squares, so that the next product
scales its rows itself: then no kernel stands between the two (`Residual`).  What two blocks of a
cluster need is read once for both (multicast).  A tile may have any multiple of 16 columns, so
that a weight is cut to fill all processors once or twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sglc.kernels.cuda_program import CudaKernel, available, matrix_map
from sglc.kernels.hopper_source import KINDS, HopperSource, Product
from sglc.kernels.residual import Residual

_log = logging.getLogger("sglc.kernels")

_SPAN = 64  # columns of a stage, as in the source
TILE_ROWS = 128  # rows of x in a tile, as in the source
_MEMORY = 226 * 1024  # that stages may have
_CUT_FROM = 1024  # columns of x from which they are shared by two blocks


class HopperGemmConfig(NamedTuple):
    """A tile's rows of the weight (of gate and up together, if gated); the tiles of x that two
    blocks of a cluster multiply with it (1 or 2); the blocks that share its columns (1 or 2)."""

    columns: int
    across: int = 1
    parts: int = 1

    @property
    def stage(self) -> int:
        """Bytes of a stage."""
        return (TILE_ROWS + self.columns) * _SPAN * 2

    @property
    def stages(self) -> int:
        """Of the pipeline."""
        return min(8, _MEMORY // self.stage)


class HopperGemmForm(NamedTuple):
    """kind: of x and the weight.  result: "PLAIN", "WIDE" (float32), "RESIDUAL", "SILU", "GELU",
    "ROPE".  count: sums of squares that come with a row of x; 0 for none.  block: columns of a sum
    of squares of the result, 0 for none.  dim: of a head, for "ROPE"."""

    kind: torch.dtype
    result: str
    count: int = 0
    block: int = 0
    dim: int = 0

    @property
    def gated(self) -> bool:
        return self.result in ("SILU", "GELU")


def hopper_gemm_source(form: HopperGemmForm, config: HopperGemmConfig) -> HopperSource:
    """The kernel `hopper_gemm`."""
    return HopperSource("hopper_gemm.cu", form.kind, {
        "FORM": form.result, "COUNT": form.count, "BLOCK": form.block, "DIM": form.dim,
        "COLS": config.columns, "CM": config.across, "CK": config.parts, "STAGES": config.stages,
    }, (Product("mma", config.columns),))


@cache
def _kernel(form: HopperGemmForm, config: HopperGemmConfig,
            device: int) -> tuple[CudaKernel, int]:
    """The kernel, and how many of its clusters run at a time."""
    kernel = CudaKernel(hopper_gemm_source(form, config).cuda(), "hopper_gemm", 384,
                        config.across * config.parts, config.stages * config.stage, device)
    return kernel, kernel.clusters()


def takes(x: Tensor, weight: Tensor, out_dtype: torch.dtype | None = None) -> bool:
    """Whether `hopper_gemm` computes this product here; out_dtype: as for `fused_linear`."""
    return len(x) > 0 and x.is_cuda and x.dtype in KINDS and x.dtype is weight.dtype \
        and x.shape[1] % 8 == 0 and weight.shape[0] % 16 == 0 \
        and out_dtype in (None, x.dtype, torch.float32) and _usable(x.device.index or 0)


@cache
def _usable(device: int) -> bool:
    """Whether the device is one that it is for, and what it takes to compile and load is there."""
    if torch.version.hip is not None or not available() \
            or torch.cuda.get_device_capability(device) != (9, 0):
        return False
    try:
        _kernel(HopperGemmForm(torch.bfloat16, "SILU"), HopperGemmConfig(224, 2), device)
    except RuntimeError as error:  # a compiler, say, that is newer than the driver
        _log.warning("products of many rows take cuBLAS: %s", error)
        return False
    return True


def hopper_gemm(x: Tensor | Residual, weight: Tensor, residual: Tensor | None = None,
                gated: bool = False, out_dtype: torch.dtype | None = None, gelu: bool = False,
                eps: float = 0.0, config: HopperGemmConfig | None = None) -> Tensor:
    """`fused_linear` without a norm, or with one whose weights are one if x has `squares`, for
    contiguous x (T, in) and weight (out, in), T > 0, both in bfloat16 or float16; in is a
    multiple of 8, out of 16.

    out_dtype: float32 with neither residual nor gate, else that of x.
    A row's result does not depend on the rows beside it, nor on the configuration but for `parts`.
    The kernel launched just before must not be what writes the weight (see `overlap`).
    """
    x, squares = x if isinstance(x, Residual) else (x, None)
    wide = out_dtype is torch.float32 and not gated
    result = ("GELU" if gelu else "SILU") if gated else "WIDE" if wide else \
        "PLAIN" if residual is None else "RESIDUAL"
    form = HopperGemmForm(x.dtype, result, 0 if squares is None else _sums(x.shape[1]).count)
    outs = len(weight) // 2 if gated else len(weight)
    out = residual
    if out is None:
        out = x.new_empty(len(x), outs, dtype=torch.float32 if wide else x.dtype)
    _launch(form, x, weight, out, squares, eps, None, 1, config)
    return out if out_dtype is None else out.to(out_dtype)


def hopper_gemm_add(x: Tensor, weight: Tensor, residual: Tensor, parts: int = 1,
                    config: HopperGemmConfig | None = None) -> Residual:
    """residual + x W^T, in place, with `squares`, where there are `row_sums(out)`.

    parts: in how many the columns of x and W may be cut, 1 or 2, where there are enough.
    """
    sums = _sums(len(weight))
    form = HopperGemmForm(x.dtype, "RESIDUAL", 0, sums.block)
    made = x.new_empty(len(x), sums.stride, dtype=torch.float32)
    _launch(form, x, weight, residual, None, 0.0, made, parts, config)
    return Residual(residual, made)


def hopper_gemm_rope(x: Tensor | Residual, weight: Tensor, positions: Tensor, slots: Tensor,
                     table: Tensor, pool: Tensor, eps: float = 0.0,
                     config: HopperGemmConfig | None = None) -> Tensor:
    """`rope_linear` with neither norms of heads nor a bias; x as for `hopper_gemm`.

    head_dim is a multiple of 32.  What is rotated has not been rounded to 16 bits before.
    """
    x, squares = x if isinstance(x, Residual) else (x, None)
    groups, dim = pool.shape[2:]
    queries = len(weight) - 2 * groups * dim
    form = HopperGemmForm(x.dtype, "ROPE", 0 if squares is None else _sums(x.shape[1]).count,
                          dim=dim)
    out = x.new_empty(len(x), queries // dim, dim)
    _launch(form, x, weight, out, squares, eps, None, 1, config,
            (positions, slots, table, pool, queries))
    return out


@dataclass(frozen=True, slots=True)
class RowSums:
    """How the sums of squares of a row of some width lie: of `block` columns each, `count` of them,
    with room for `stride`."""

    block: int
    count: int
    stride: int


@cache
def row_sums(width: int) -> RowSums | None:
    """For rows of `width` columns; None where they are too wide: a product keeps all sums of its
    rows in registers."""
    if width > 8192:
        return None
    block = 64 if width <= 4096 else 128
    count = -(-width // block)
    return RowSums(block, count, -(-count // 16) * 16)


def _sums(width: int) -> RowSums:
    found = row_sums(width)
    assert found is not None
    return found


def _launch(form: HopperGemmForm, x: Tensor, weight: Tensor, out: Tensor, squares: Tensor | None,
            eps: float, sums: Tensor | None, parts: int, config: HopperGemmConfig | None,
            more: tuple[Any, ...] = ()) -> None:
    rows, width = x.shape
    outs, device = len(weight) // 2 if form.gated else len(weight), x.device.index or 0
    c = config or hopper_gemm_config(rows, outs, form, _processors(device),
                                     parts if width >= _CUT_FROM else 1)
    kernel, places = _kernel(form, c, device)
    groups = _groups(c, rows, outs, form)
    clusters = groups[0] * groups[1]
    halves = c.columns // 16 if form.dim else 2 if form.gated or c.across > 1 else 1
    kernel.launch((clusters if c.parts > 1 else min(clusters, places)) * c.across * c.parts, (
        matrix_map(x, (min(rows, TILE_ROWS), _SPAN)),
        matrix_map(weight, (c.columns // halves, _SPAN)),
        out, rows, outs, -(-width // _SPAN), *groups, squares, 1.0 / width, eps, sums,
        0 if sums is None else sums.shape[1], *more), True)


@cache
def hopper_gemm_config(rows: int, outs: int, form: HopperGemmForm, processors: int,
                       parts: int = 1) -> HopperGemmConfig:
    """The configuration for x of so many rows, and `outs` results of each.

    All processors take equally long for a tile of one width, so the number of rounds counts, and
    for each what its tile takes: shared memory binds, into which a tile of x and one of the
    weight are written once, and which both warpgroups read the latter from.  Blocks that share
    their weights are a little faster; two that share a tile have to exchange what they have.
    """
    def cost(c: HopperGemmConfig) -> float:
        tiles = prod(_groups(c, rows, outs, form))
        rounds = -(-tiles // (processors // (c.across * c.parts)))
        return rounds * (64 + 0.75 * c.columns) * (1.0 if c.across == 2 else 1.03) \
            * (1.0 if c.parts == 1 else 0.55)

    return min((HopperGemmConfig(columns, *blocks) for columns in hopper_gemm_columns(form)
                for blocks in ((2, 1), (1, 1), (1, 2)) if blocks[1] <= parts), key=cost)


def hopper_gemm_columns(form: HopperGemmForm) -> tuple[int, ...]:
    """The widths that a tile may have."""
    if form.gated:
        return 256, 224, 128, 112
    if form.block:
        return tuple(columns for columns in (256, 128, 64) if columns >= form.block)
    if form.dim:  # there are no registers for more sums and angles
        return (128, 96, 64) if form.count or 128 % form.dim else (256, 128, 96, 64)
    return 256, 192, 128, 96, 64


def _groups(c: HopperGemmConfig, rows: int, outs: int, form: HopperGemmForm) -> tuple[int, int]:
    """Of tiles that a cluster takes together: how many along the rows, and along the weight."""
    each = c.columns // 2 if form.gated else c.columns
    return -(-rows // (TILE_ROWS * c.across)), -(-outs // each)


@cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
