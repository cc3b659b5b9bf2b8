"""4-bit weights on a GPU, beside bfloat16: the products of the Llama-3.1-8B shape, and decoding.

    python -m bench.gpu_int4 [--kernels [--act-order]] [--engine] [--tune]

Products: microseconds, and of one row the bytes of the weight that are read a second.  `--tune`
tries other configurations of the kernels.  `--act-order`: of weights whose columns were moved.
Engine: one prompt of 128 ids, 256 new tokens, greedy, random weights, medians of `--turns`; all
formats in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

import sglc
from bench.gpu_timing import microseconds
from sglc.kernels.fused_linear_triton import fused_linear_triton, pack_triton
from sglc.kernels.int4 import random_int4
from sglc.kernels.int4_few_triton import FEW_LINES, Int4FewConfig, int4_few_triton
from sglc.kernels.int4_gemm_triton import MOST_LINES, Int4GemmConfig, int4_gemm_triton
from sglc.kernels.int4_inputs_triton import int4_inputs_triton
from sglc.kernels.int4_order_triton import int4_order_triton
from sglc.kernels.int4_triton import pack_int4_triton

SHAPE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256,
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
}
FORMATS: dict[str, dict[str, Any] | None] = {
    "bfloat16": None,
    "awq 128": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "gptq 128": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "gptq 128 act-order": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True},
    "gptq 32": {"quant_method": "gptq", "bits": 4, "group_size": 32},
}
# name -> (rows of the weight, columns, normed, gated, added to the residual)
PRODUCTS = {"qkv": (6144, 4096, True, False, False), "out": (4096, 4096, False, False, True),
            "gate_up": (28672, 4096, True, True, False), "down": (4096, 14336, False, False, True)}
FRESH = 256 << 20  # bytes of weights taken in turns, so that none is in the cache


def products(rows_list: list[int], tune: bool, names: list[str], act_order: bool) -> None:
    random = torch.Generator("cuda").manual_seed(0)
    print("product | rows | bf16 us | int4 us | ratio | int4 GB/s", flush=True)
    for name in names:
        outs, width, normed, gated, added = PRODUCTS[name]
        kind = torch.bfloat16
        norm = torch.ones(width, dtype=kind, device="cuda") if normed else None
        count = -(-FRESH // (outs * width // 2))
        dense = [pack_triton(torch.randn(outs, width, dtype=kind, device="cuda") / width**0.5)
                 for _ in range(-(-FRESH // (outs * width * 2)))]
        small = []
        for _ in range(count):
            packed = pack_int4_triton(random_int4((outs, width), 128, kind, random, act_order))
            assert packed is not None
            small.append(packed)
        for rows in rows_list:
            x = torch.randn(rows, width, dtype=kind, device="cuda")
            old = torch.randn(rows, outs, dtype=kind, device="cuda") if added else None

            def of(weights: list[Any], x: Any = x, norm: Any = norm, old: Any = old,
                   gated: bool = gated) -> Callable[[int], object]:
                return lambda i: fused_linear_triton(x, weights[i], norm, 1e-5, old, gated)

            wide = microseconds(of(dense), len(dense))
            took = microseconds(of(small), len(small))
            w = small[0]
            size = sum(t.nbytes for t in (w.words, w.scales))
            print(f"{name} | {rows} | {wide:.1f} | {took:.1f} | {wide / took:.2f} | "
                  f"{size / took / 1e3:.0f}", flush=True)
            if tune:
                _tune(x, small, norm, old, gated)


def inputs(act_order: bool) -> None:
    """The kernel that goes before a product: of few rows if their order changes, of some always."""
    random = torch.Generator("cuda").manual_seed(0)
    for rows, (width, normed) in product((1, 8, 16), ((4096, True), (4096, False), (14336, False))):
        if rows <= FEW_LINES and not act_order:
            continue
        w = pack_int4_triton(random_int4((16, width), 128, torch.bfloat16, random, act_order))
        assert w is not None
        x = torch.randn(rows, width, dtype=torch.bfloat16, device="cuda")
        norm = torch.ones(width, dtype=x.dtype, device="cuda") if normed else None

        def one(i: int, x: Any = x, w: Any = w, norm: Any = norm) -> object:
            if len(x) <= FEW_LINES:
                return int4_order_triton(x, w.order, norm, 1e-5)
            return int4_inputs_triton(x, w, norm, 1e-5)
        print(f"inputs {rows} x {width}{', normed' * normed}: {microseconds(one):.2f} us",
              flush=True)


def _tune(x: torch.Tensor, weights: list[Any], norm: Any, old: Any, gated: bool) -> None:
    """The five fastest configurations."""
    found: list[tuple[float, Any]] = []
    configs: list[Any]
    if len(x) <= FEW_LINES:
        configs = [Int4FewConfig(parts, warps) for parts, warps in product((2, 4, 8, 16), (2, 4, 8))
                   if parts >= warps]
    else:
        shapes = ((1, 4, 4, 3), (1, 4, 4, 5), (1, 8, 8, 3), (1, 8, 4, 1), (1, 16, 8, 1),
                  (1, 16, 16, 1), (4, 1, 4, 3), (2, 2, 4, 3))
        configs = [Int4GemmConfig(tiles, *shape) for tiles, shape in product((1, 2, 4), shapes)
                   if len(x) <= MOST_LINES and not (gated and tiles == 1)]
    for config in configs:
        def one(i: int, c: Any = config) -> object:
            if isinstance(c, Int4FewConfig):  # without its norm
                return int4_few_triton(x, weights[i], old, gated, x.dtype, c)
            return int4_gemm_triton(x, weights[i], norm, 1e-5, old, gated, x.dtype, c)
        found.append((_timed(one, len(weights)), config))
    for took, config in sorted(found, key=lambda pair: pair[0])[:5]:
        print(f"    {took:.1f} us  {config}", flush=True)


def _timed(call: Callable[[int], object], variants: int) -> float:
    try:
        return microseconds(call, variants, repeats=7)
    except Exception as error:  # the compiler's errors are of many types
        print(f"    ({type(error).__name__}: {str(error)[:80]})")
        return float("inf")


def decoding(turns: int, formats: list[str]) -> None:
    print("weights | seconds (all) | ms a token | against bfloat16 | GB on the GPU", flush=True)
    first = 0.0
    for name in formats:
        scheme = FORMATS[name]
        with tempfile.TemporaryDirectory() as folder:
            config = SHAPE if scheme is None else {**SHAPE, "quantization_config": scheme}
            (Path(folder) / "config.json").write_text(json.dumps(config))
            before = torch.cuda.mem_get_info()[0]
            with sglc.Engine(folder, device="cuda", load_format="dummy", kv_tokens=4096) as engine:
                taken = before - torch.cuda.mem_get_info()[0]
                asked = {"max_new_tokens": 256, "temperature": 0.0, "ignore_eos": True}
                times = []
                for turn in range(turns + 1):
                    engine.flush_cache()
                    began = time.perf_counter()
                    engine.generate(input_ids=[list(range(100, 228))], sampling=asked)
                    if turn:
                        times.append(time.perf_counter() - began)
        torch.cuda.empty_cache()
        median = statistics.median(times)
        first = first or median
        print(f"{name} | {median:.3f} ({', '.join(f'{t:.3f}' for t in times)}) | "
              f"{median / 256 * 1e3:.2f} | {first / median:.2f} | {taken / 1e9:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--engine", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--act-order", action="store_true", help="of the products of --kernels")
    parser.add_argument("--products", default=",".join(PRODUCTS))
    parser.add_argument("--rows", default="1,2,16,64,256")
    parser.add_argument("--formats", default=",".join(FORMATS), help="of --engine")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    if args.kernels or args.tune:
        inputs(args.act_order)
        products([int(n) for n in args.rows.split(",")], args.tune, args.products.split(","),
                 args.act_order)
    if args.engine or not (args.kernels or args.tune):
        decoding(args.turns, args.formats.split(","))


if __name__ == "__main__":
    main()
