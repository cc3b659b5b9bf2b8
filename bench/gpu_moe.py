"""A mixture of experts on a GPU: a layer of the Mixtral-8x7B shape, bfloat16, random routing.

    python -m bench.gpu_moe [--tokens 1,16,64,256,4096] [--tune] [--engine] [--layers N]
        [--bandwidth GB/s] [--flops TFLOPs]

Microseconds of the operation (routing, both products, the sum) and of the products, and the part
of what the device can do at most: the bytes of the experts that are used or the operations of the
pairs, whichever takes longer.  `--tune` tries other configurations of the products.  `--engine`:
one prompt of 128 ids, 128 new tokens, greedy, of a model of that shape with so many layers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch

import sglc
from bench.gpu_timing import microseconds
from sglc.kernels.experts import experts_torch
from sglc.kernels.experts_triton import (
    ExpertsConfig,
    experts_config,
    experts_fixed,
    experts_triton,
    grouped_product,
)
from sglc.kernels.route_triton import Routing, route_triton

HIDDEN, WIDTH, EXPERTS, USED = 4096, 14336, 8, 2
# name -> (GB/s, TFLOPs of bfloat16), of the vendor's data sheets
PEAKS = {"H200": (4800.0, 989.0), "H100": (3350.0, 989.0), "A100": (2039.0, 312.0)}


def peaks(args: argparse.Namespace) -> tuple[float, float]:
    name = torch.cuda.get_device_name()
    known = next((peak for key, peak in PEAKS.items() if key in name), (None, None))
    bandwidth, flops = args.bandwidth or known[0], args.flops or known[1]
    if bandwidth is None or flops is None:
        raise SystemExit(f"give --bandwidth and --flops of {name}")
    return bandwidth * 1e9, flops * 1e12


def measure(tokens: list[int], bandwidth: float, flops: float, tune: bool) -> None:
    kind, where = torch.bfloat16, "cuda"
    gate_up = torch.randn(EXPERTS, 2 * WIDTH, HIDDEN, dtype=kind, device=where) / HIDDEN**0.5
    down = torch.randn(EXPERTS, HIDDEN, WIDTH, dtype=kind, device=where) / WIDTH**0.5
    print("tokens | experts used | all us | of the floor | gate_up us | down us | fixed us | "
          "error | bound by", flush=True)
    for count in tokens:
        x = torch.randn(count, HIDDEN, dtype=kind, device=where)
        scores = torch.randn(count, EXPERTS, device=where)
        residual = torch.zeros_like(x)
        routing = route_triton(scores, USED, True)
        begins = routing.starts.tolist()
        used = sum(a < b for a, b in pairwise(begins))
        parts = [used * 3 * HIDDEN * WIDTH * 2 / bandwidth,
                 2 * count * USED * 3 * HIDDEN * WIDTH / flops]
        floor = max(parts) * 1e6
        took, fixed = (_whole(form, x, scores, gate_up, down, residual)
                       for form in (experts_triton, experts_fixed))
        inner = torch.randn(count * USED, WIDTH, dtype=kind, device=where)
        each = []
        for gated, source, weight in ((True, x, gate_up), (False, inner, down)):
            config = experts_config(count * USED, EXPERTS, gated, kind)
            each.append(_product(source, weight, routing, gated, config))
        print(f"{count} | {used} | {took:.1f} | {floor / took:.2f} | {each[0]:.1f} | "
              f"{each[1]:.1f} | {fixed:.1f} | {_error(x, scores, gate_up, down):.1e} | "
              f"{'bytes' if parts[0] > parts[1] else 'operations'}", flush=True)
        if tune:
            _tune(x, gate_up, routing, True)
            _tune(inner, down, routing, False)


def _whole(form: Callable[..., torch.Tensor], x: torch.Tensor, scores: torch.Tensor,
           gate_up: torch.Tensor, down: torch.Tensor, residual: torch.Tensor) -> float:
    return microseconds(lambda i: form(x, scores, gate_up, down, USED, True, residual))


def _product(x: torch.Tensor, weight: torch.Tensor, routing: Routing, gated: bool,
             config: ExpertsConfig, repeats: int = 15) -> float:
    return microseconds(lambda i: grouped_product(x, weight, routing, gated, False, config),
                        repeats=repeats)


def _error(x: torch.Tensor, scores: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
           ) -> float:
    """Of the largest result, of up to 16 tokens, against float32; one expert at a time fits."""
    x, scores = x[:16], scores[:16]
    exact = torch.zeros(len(x), HIDDEN, device=x.device)
    weights, chosen = scores.softmax(-1).topk(USED)
    weights = weights / weights.sum(-1, keepdim=True)
    for expert in range(EXPERTS):
        alone: Any = experts_torch(x.float(), torch.zeros(len(x), 1, device=x.device),
                                   gate_up[expert:expert + 1].float(),
                                   down[expert:expert + 1].float(), 1, True)
        exact += alone * (weights * (chosen == expert)).sum(-1, keepdim=True)
    found = experts_triton(x, scores, gate_up, down, USED, True)
    return float((found.float() - exact).abs().max() / exact.abs().max())


def _tune(x: torch.Tensor, weight: torch.Tensor, routing: Routing, gated: bool) -> None:
    """The five fastest configurations."""
    each = -(-len(routing.order) // EXPERTS)
    lines = [n for n in (16, 32, 64, 128) if n <= max(16, 2 * each)][-3:]
    found = []
    for config in (ExpertsConfig(*c) for c in product(lines, (32, 64, 128), (32, 64, 128),
                                                      (3, 4, 5), (4, 8))):
        size = config.stages * config.columns * 2 * (config.rows * (1 + gated) + config.lines)
        if size > 200_000 or (1 + gated) * config.rows * config.lines // (
                32 * config.warps) > 128 or config.rows * config.columns < 4096:
            continue
        try:
            found.append((_product(x, weight, routing, gated, config, 5), config))
        except Exception as error:  # the compiler's errors are of many types
            print(f"    {config}: {type(error).__name__}: {str(error)[:80]}")
    for took, config in sorted(found, key=lambda pair: pair[0])[:5]:
        print(f"    {'gate_up' if gated else 'down'} {took:.1f} us  {config}", flush=True)


def decoding(layers: int, bandwidth: float) -> None:
    shape = {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": HIDDEN,
             "intermediate_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": 32,
             "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
             "rope_theta": 1e6, "num_local_experts": EXPERTS, "num_experts_per_tok": USED,
             "sliding_window": None, "torch_dtype": "bfloat16"}
    each = 2 * (USED * 3 * WIDTH + 2.5 * HIDDEN) * HIDDEN * layers + 2 * 32000 * HIDDEN
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape))
        with sglc.Engine(folder, device="cuda", load_format="dummy", kv_tokens=4096) as engine:
            asked = {"max_new_tokens": 128, "temperature": 0.0, "ignore_eos": True}
            times = []
            for turn in range(4):
                engine.flush_cache()
                began = time.perf_counter()
                engine.generate(input_ids=[list(range(100, 228))], sampling=asked)
                if turn:
                    times.append(time.perf_counter() - began)
    took = sorted(times)[1] / 128
    print(f"{layers} layers: {took * 1e3:.2f} ms a token, prefill included; weights alone at "
          f"{bandwidth / 1e9:.0f} GB/s: {each / bandwidth * 1e3:.2f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="1,16,64,256,4096")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--engine", action="store_true")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--bandwidth", type=float)
    parser.add_argument("--flops", type=float)
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    bandwidth, flops = peaks(args)
    if args.engine:
        decoding(args.layers, bandwidth)
    else:
        measure([int(n) for n in args.tokens.split(",")], bandwidth, flops, args.tune)


if __name__ == "__main__":
    main()
