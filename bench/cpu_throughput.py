"""The engine end to end on the CPU, beside transformers and llama.cpp, in one process and run.

Decode: `--new` greedy tokens after a 32-token prompt, prefill included, at batch 1, 16 and 64;
prefill: 512 tokens in, 1 out.  The sides take turns, so that load on the machine meets all of
them; a figure is the best of `--repeat` turns.  Quote the ratios: absolute times on a shared
machine mean little.

    python -m bench.cpu_throughput [--dtype float32|bfloat16] [--new 64] [--repeat 3]

transformers comes with the dev extra; llama.cpp runs if `pip install xllamacpp` worked.
"""

from __future__ import annotations

import argparse
import os
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import sglc as sgl
from bench.cpu_kernels import transformers_model
from sglc.progress import Progress

Run = Callable[[list[list[int]], int], None]
GOALS = {"float32": (23, 200, 340, 440), "bfloat16": (45, None, None, None)}  # design, section 12


def engine_run(engine: Any) -> Run:
    def run(ids: list[list[int]], new: int) -> None:
        out = engine.generate(input_ids=ids, sampling={
            "temperature": 0, "max_new_tokens": new, "ignore_eos": True})
        assert all(len(r.ids) == new for r in out)

    return run


def transformers_run(dtype: torch.dtype) -> Run:
    model = transformers_model(dtype)

    def run(ids: list[list[int]], new: int) -> None:
        batch = torch.tensor(ids)
        model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=new,
                       min_new_tokens=new, do_sample=False, pad_token_id=2)

    return run


def llama_cpp_run(path: str) -> Run | None:
    """llama.cpp on the same GGUF, its own (quantised) arithmetic; None if it is not installed."""
    try:
        import xllamacpp
    except ImportError:
        return None
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 64 * 640
    params.n_parallel = 64
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # it logs every request
    server = xllamacpp.Server(params)

    def run(ids: list[list[int]], new: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def one(row: list[int]) -> None:
            answer = server.handle_completions({
                "prompt": row, "n_predict": new, "temperature": 0, "ignore_eos": True,
                "cache_prompt": False})
            if "error" in answer:
                raise RuntimeError(answer["error"])

        with ThreadPoolExecutor(len(ids)) as pool:
            list(pool.map(one, ids))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=list(GOALS))
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    start = time.perf_counter()
    engine = sgl.Engine(dtype=options.dtype, radix_cache=False)
    load = time.perf_counter() - start
    sides: dict[str, Run] = {"sglc": engine_run(engine)}
    start = time.perf_counter()
    sides["sglc"]([list(array("q", [1, 2, 3]))], 1)
    print(f"load {load:.2f} s, first token {time.perf_counter() - start:.2f} s later "
          f"(goal <= 1 s after importing torch)")
    if not options.no_peers:
        sides["transformers"] = transformers_run(
            torch.float32 if options.dtype == "float32" else torch.bfloat16)
        peer = llama_cpp_run(str(engine.model_path))
        if peer is not None:
            sides["llama.cpp"] = peer
    rng = np.random.default_rng(0)
    jobs = [("decode, batch 1", 1, 32, options.new), ("decode, batch 16", 16, 32, options.new),
            ("decode, batch 64", 64, 32, options.new), ("prefill 512", 1, 512, 1)]
    print(f"{options.dtype}, tokens/s: best of {options.repeat}; goal; peers and our ratio to them")
    bar = Progress(len(jobs) * (options.repeat + 1) * len(sides), unit="run", leave=False)
    for (what, rows, prompt, new), goal in zip(jobs, GOALS[options.dtype], strict=True):
        best = dict.fromkeys(sides, float("inf"))
        for turn in range(options.repeat + 1):
            for name, run in sides.items():
                ids = rng.integers(100, 48000, (rows, prompt)).tolist()
                start = time.perf_counter()
                run(ids, new)
                if turn:  # the first is a warm-up
                    best[name] = min(best[name], time.perf_counter() - start)
                bar.step()
        count = prompt if new == 1 else rows * new
        line = f"{what:<17} sglc {count / best['sglc']:7.1f}  goal {goal or '-'}"
        for name, seconds in best.items():
            if name != "sglc":
                line += f"   {name} {count / seconds:7.1f} ({seconds / best['sglc']:.2f}x)"
        bar.say(line)
    bar.close()
    engine.close()


if __name__ == "__main__":
    main()
