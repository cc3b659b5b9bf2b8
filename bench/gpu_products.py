"""Products of many rows on Hopper, beside cuBLAS and what stands around it, in the shape of
Llama 3.1 8B.

    python -m bench.gpu_products [--rows 128 256 512 1024 8192] [--only out,down] [--all]

Times are device time: medians over replays of graphs of 15 ms and more, so that the GPU is at its
power limit as in a long run.  `qkv` and `gate` scale their rows by sums of squares, `out` and
`down` are added to the residual and make such sums; beside them cuBLAS with the gate, or with a
norm.  `rope` is `qkv` with its norm, rotated and kept in the pool; beside it what kernels="auto"
takes for that.  `--all`: every form of a tile.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu_timing import microseconds
from sglc.kernels.fused_linear_triton import SUMS_ROWS, pack_triton
from sglc.kernels.hopper_gemm_cuda import (
    HopperGemmConfig,
    HopperGemmForm,
    hopper_gemm,
    hopper_gemm_add,
    hopper_gemm_columns,
    hopper_gemm_config,
    hopper_gemm_rope,
    row_sums,
)
from sglc.kernels.residual import Residual
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.rope_linear_triton import rope_linear_triton
from sglc.kernels.silu_mul_triton import silu_mul_triton

HIDDEN = 4096
SHAPES = {"qkv": (6144, HIDDEN), "rope": (6144, HIDDEN), "out": (HIDDEN, HIDDEN),
          "gate": (28672, HIDDEN), "down": (HIDDEN, 14336)}
BLOCKS = ((1, 1), (2, 1), (1, 2))


def measure(name: str, rows: int, every: bool) -> str:
    """A line: microseconds of cuBLAS and of the kernel."""
    outs, width = SHAPES[name]
    count = max(2, -(-(256 << 20) // (outs * width * 2)))  # together larger than the cache
    weights = [torch.randn(outs, width, dtype=torch.bfloat16, device="cuda") / width**0.5
               for _ in range(count)]
    x = torch.randn(rows, width, dtype=torch.bfloat16, device="cuda")
    gain = torch.ones(HIDDEN, dtype=torch.bfloat16, device="cuda")
    old = torch.randn(rows, HIDDEN, dtype=torch.bfloat16, device="cuda")
    normed = Residual(x, torch.rand(rows, 64, device="cuda"))
    adds, gated, turns = name in ("out", "down"), name == "gate", name == "rope"
    summed = not turns or rows in SUMS_ROWS
    packed = [pack_triton(weight) for weight in weights] if turns else []
    at = torch.arange(rows, device="cuda")
    table = torch.randn(rows, 128, device="cuda")
    pool = torch.zeros(rows, 2, 8, 128, dtype=torch.bfloat16, device="cuda")
    sums = row_sums(HIDDEN)
    assert sums is not None
    result = "RESIDUAL" if adds else "SILU" if gated else "ROPE" if turns else "PLAIN"
    form = HopperGemmForm(torch.bfloat16, result, 0 if adds or not summed else sums.count,
                          sums.block if adds else 0, 128 if turns else 0)
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    chosen = hopper_gemm_config(rows, outs >> gated, form, processors, 2 if adds else 1)

    def blas(i: int) -> Tensor:
        if adds:
            return rms_norm_triton(old.addmm_(x, weights[i].t()), gain, 1e-5)
        if turns:
            return rope_linear_triton(normed if summed else x, packed[i], gain, 1e-5, at, at, table,
                                      pool)
        y = x @ weights[i].t()
        return silu_mul_triton(y) if gated else y

    def own(config: HopperGemmConfig) -> Callable[[int], object]:
        if adds:
            return lambda i: hopper_gemm_add(x, weights[i], old, config=config)
        if turns:
            return lambda i: hopper_gemm_rope(
                normed if summed else rms_norm_triton(x, gain, 1e-5), weights[i], at, at, table,
                pool, 1e-5, config)
        return lambda i: hopper_gemm(normed, weights[i], gated=gated, eps=1e-5, config=config)

    def timed(call: Callable[[int], object]) -> float:
        old.normal_()  # what is added again and again grows
        return microseconds(call, count, least=15_000.0)

    before = timed(blas)
    parts = []
    for config in [HopperGemmConfig(c, *blocks) for c in hopper_gemm_columns(form)
                   for blocks in BLOCKS[:3 if adds else 2]] if every else [chosen]:
        took = timed(own(config))
        parts.append(f"{tuple(config)}{'*' * (config == chosen)} {took:.1f} ({before / took:.3f}x, "
                     f"{2 * rows * outs * width / took / 1e6:.0f} TFLOP/s)")
    return f"{rows} rows, {name}: {'auto' if turns else 'cuBLAS'} {before:.1f}; {', '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 8192])
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--all", action="store_true", help="every form of a tile")
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for rows in args.rows:
        for name in args.only.split(","):
            print(measure(name, rows, args.all), flush=True)


if __name__ == "__main__":
    main()
