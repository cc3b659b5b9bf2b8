"""silu(x G^T) * (x U^T) of many rows on Hopper (compute capability 9.0), in CUDA C++.

Gate and up of the same columns lie in one tile, so that their product is made in registers: the
sums of both are never written, and no second kernel reads them.  What two blocks of a cluster
need is read once for both (multicast).  A tile may have any multiple of 16 columns, so that a
weight is cut to fill all processors once or twice.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.resources import files
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from sglc.kernels.cuda_program import CudaKernel, available, matrix_map

_log = logging.getLogger("sglc.kernels")

_SPAN = 64  # columns of a stage, as in the source
_MEMORY = 226 * 1024  # that stages may have
_KINDS = {torch.bfloat16: "bf16", torch.float16: "f16"}


class GatedGemmConfig(NamedTuple):
    """A tile's rows of x (128 or 256), and of the weight, of gate and up together; the blocks of
    a cluster: tiles of x (1 or 2), tiles of the weight."""

    rows: int
    columns: int
    across: int = 1
    along: int = 1

    @property
    def stage(self) -> int:
        """Bytes of a stage."""
        return (self.rows + self.columns) * _SPAN * 2


def _source(kind: str, config: GatedGemmConfig, gelu: bool) -> str:
    values = {"KIND": f'"{kind}"', "ROWS": config.rows, "COLS": config.columns,
              "CM": config.across, "CN": config.along, "STAGES": _MEMORY // config.stage,
              "GELU": int(gelu)}
    sums = config.columns // 2
    return "".join(f"#define {name} {value}\n" for name, value in values.items()) + f"""\
__device__ __forceinline__ void mma(float (&d)[{sums}], unsigned long long a,
                                    unsigned long long b, int more) {{
  asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{sums + 2}, 0;\\n"
    "wgmma.mma_async.sync.aligned.m64n{config.columns}k16.f32.{kind}.{kind} "
    "{{{', '.join(f'%{i}' for i in range(sums))}}}, %{sums}, %{sums + 1}, p, 1, 1, 0, 0;\\n}}"
    : {', '.join(f'"+f"(d[{i}])' for i in range(sums))} : "l"(a), "l"(b), "r"(more));
}}
""" + files("sglc.kernels").joinpath("gated_gemm.cu").read_text("utf-8")


@cache
def _kernel(kind: torch.dtype, config: GatedGemmConfig, gelu: bool,
            device: int) -> tuple[CudaKernel, int]:
    """The kernel, and how many of its clusters run at a time."""
    kernel = CudaKernel(_source(_KINDS[kind], config, gelu), "gated_gemm", 384,
                        config.across * config.along,
                        _MEMORY // config.stage * config.stage, device)
    return kernel, kernel.clusters()


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether `gated_gemm` computes this product here."""
    return len(x) > 0 and x.is_cuda and x.dtype in _KINDS and x.dtype is weight.dtype \
        and x.shape[1] % 8 == 0 and weight.shape[0] % 16 == 0 \
        and _usable(x.dtype, x.device.index or 0)


@cache
def _usable(kind: torch.dtype, device: int) -> bool:
    """Whether the device is one that it is for, and what it takes to compile and load is there."""
    if torch.version.hip is not None or not available() \
            or torch.cuda.get_device_capability(device) != (9, 0):
        return False
    try:
        _kernel(kind, GatedGemmConfig(128, 224, 2), False, device)
    except RuntimeError as error:  # a compiler, say, that is newer than the driver
        _log.warning("products with a gate take cuBLAS: %s", error)
        return False
    return True


def gated_gemm(x: Tensor, weight: Tensor, gelu: bool = False,
               config: GatedGemmConfig | None = None) -> Tensor:
    """silu_mul(x W^T), or gelu_mul, for contiguous x (T, in) and weight (2 out, in), both in
    bfloat16 or float16, T > 0; in and out are multiples of 8.

    A row's result does not depend on the rows beside it, nor on the configuration.
    The kernel launched just before must not be what writes the weight (see `overlap`).
    """
    rows, width = x.shape
    outs = weight.shape[0] // 2
    device = x.device.index or 0
    c = config or gated_gemm_config(rows, outs, _processors(device))
    out = x.new_empty(rows, outs)
    kernel, places = _kernel(x.dtype, c, gelu, device)
    groups = _groups(c, rows, outs)
    kernel.launch(min(groups[0] * groups[1], places) * c.across * c.along, (
        matrix_map(x, (c.rows // c.along, _SPAN)), matrix_map(weight, (c.columns // 2, _SPAN)),
        out, rows, outs, -(-width // _SPAN), *groups), True)
    return out


@cache
def gated_gemm_config(rows: int, outs: int, processors: int) -> GatedGemmConfig:
    """The configuration for x of so many rows and `outs` results of each.

    All processors take equally long for a tile of one width, so the number of rounds counts, and
    for each its columns and a start.  Of these forms blocks that share their weights are faster.
    """
    def cost(c: GatedGemmConfig) -> float:
        tiles = prod(_groups(c, rows, outs))
        rounds = -(-tiles // (processors // c.across))
        return rounds * (c.columns + 8) * (1.0 if c.across == 2 else 1.03)

    return min((GatedGemmConfig(128, columns, across)
                for columns in (256, 224, 128, 112) for across in (2, 1)), key=cost)


def _groups(c: GatedGemmConfig, rows: int, outs: int) -> tuple[int, int]:
    """Of tiles that a cluster takes together: how many along the rows, and along the weight."""
    return -(-rows // (c.rows * c.across)), -(-outs // (c.columns // 2 * c.along))


@cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
