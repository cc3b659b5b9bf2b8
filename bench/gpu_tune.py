"""Tries configurations of the kernels for few rows; prints the best of each weight's shape.

    python -m bench.gpu_tune

Compiles in all processors first.  The numbers go into `gemv_config` and `small_config`.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import time
from functools import cache
from typing import Any

import torch

from bench.gpu_timing import copies, microseconds
from sglc.kernels.gemv_triton import GemvConfig, gemv_triton
from sglc.kernels.small_gemm_triton import SmallConfig, small_gemm_triton

# name: (rows of the weight, columns, norm, residual, gated, type of the result)
WEIGHTS: dict[str, tuple[int, int, bool, bool, bool, torch.dtype]] = {
    "qkv": (6144, 4096, True, False, False, torch.bfloat16),
    "out": (4096, 4096, False, True, False, torch.bfloat16),
    "gate_up": (28672, 4096, True, False, True, torch.bfloat16),
    "down": (4096, 14336, False, True, False, torch.bfloat16),
    "head": (128256, 4096, True, False, False, torch.float32),
}
GEMV = [GemvConfig(r, c, w) for r, c, w in itertools.product(
    (1, 2, 4, 8), (512, 1024, 2048, 4096), (2, 4, 8)) if 8 <= r * c // (32 * w) <= 64]
TILES = [(16, 256, 4, 4), (32, 128, 5, 4), (32, 256, 4, 4), (64, 64, 6, 4), (64, 128, 3, 4),
         (64, 128, 5, 4), (64, 256, 3, 4), (128, 64, 4, 4), (128, 64, 6, 8), (128, 128, 3, 8)]
SPLITS = {"qkv": (2, 4, 8), "out": (2, 4, 8), "gate_up": (1, 2, 4), "down": (4, 7, 14),
          "head": (1, 2)}


def candidates(name: str) -> list[Any]:
    """Configurations for the weight `name`."""
    gated = WEIGHTS[name][4]
    gemv = [c for c in GEMV if not gated or 2 * c.rows * c.columns // (32 * c.warps) <= 64]
    small = [SmallConfig(r, c, splits, stages, warps) for r, c, stages, warps in TILES
             for splits in SPLITS[name]
             if stages * ((1 + gated) * r + 16) * c * 2 <= 200_000]
    return [*gemv, *small]


def run(config: Any, x: torch.Tensor, weight: torch.Tensor, name: str,
        arrived: torch.Tensor) -> torch.Tensor:
    """One product with this configuration."""
    outs, width, norm, residual, gated, kind = WEIGHTS[name]
    gain = _ones(width) if norm else None
    into = _ones(len(x), outs) if residual else None
    if isinstance(config, GemvConfig):
        return gemv_triton(x, weight, gain, 1e-5, into, gated, kind, config)
    return small_gemm_triton(x, weight, arrived, gain, 1e-5, into, gated, kind, config)


@cache
def _ones(*size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.bfloat16, device="cuda")


def compile_one(job: tuple[str, Any]) -> str:
    """Compile by running once on a weight of fewer rows; what went wrong, if anything."""
    name, config = job
    _, width, *_ = WEIGHTS[name]
    try:
        weight = torch.zeros(512, width, dtype=torch.bfloat16, device="cuda")
        arrived = torch.zeros(64, dtype=torch.int32, device="cuda")
        x = torch.zeros(1 if isinstance(config, GemvConfig) else 16, width, dtype=torch.bfloat16,
                        device="cuda")
        outs, *rest = WEIGHTS[name]
        WEIGHTS[name] = (512, *rest)
        run(config, x, weight, name, arrived)
        torch.cuda.synchronize()
        WEIGHTS[name] = (outs, *rest)
    except Exception as e:
        return f"{name} {config}: {type(e).__name__} {str(e)[:80]}"
    return ""


def compile_all() -> None:
    """Fill Triton's cache."""
    jobs = [(name, c) for name in WEIGHTS for c in candidates(name)]
    before = time.time()
    with multiprocessing.get_context("spawn").Pool(min(14, os.cpu_count() or 1)) as pool:
        for problem in pool.imap_unordered(compile_one, jobs, chunksize=4):
            if problem:
                print("cannot:", problem)
    print(f"compiled {len(jobs)} in {time.time() - before:.0f} s")


def tune(name: str) -> None:
    """Print the best five configurations of one weight for 1 and 16 rows, and cuBLAS."""
    outs, width, *_ = WEIGHTS[name]
    weights = copies(lambda: torch.randn(outs, width, dtype=torch.bfloat16, device="cuda")
                     / width**0.5)
    arrived = torch.zeros(outs, dtype=torch.int32, device="cuda")

    def time_of(config: Any, x: torch.Tensor) -> float:
        return microseconds(lambda i: run(config, x, weights[i], name, arrived), len(weights), 5)

    def time_of_cublas(x: torch.Tensor) -> float:
        return microseconds(lambda i: x @ weights[i].t(), len(weights), 5)

    for rows in (1, 16):
        x = torch.randn(rows, width, dtype=torch.bfloat16, device="cuda")
        found = [(time_of_cublas(x), "cuBLAS, the product alone")]
        for config in candidates(name):
            if isinstance(config, GemvConfig) and rows > 1:
                continue
            try:
                found.append((time_of(config, x), str(config)))
            except Exception as e:
                print("cannot:", name, config, type(e).__name__, str(e)[:80])
        found.sort()
        for took, config in found[:5] + [f for f in found[5:] if "cuBLAS" in f[1]]:
            rate = weights[0].nbytes / took / 1e6
            print(f"{name:8} {rows:3} rows {took:8.2f} us {rate:5.2f} TB/s  {config}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["--compiled"]:
        compile_all()
    if sys.argv[1:] != ["--compile"]:
        for weight in WEIGHTS:
            tune(weight)
            torch.cuda.empty_cache()
