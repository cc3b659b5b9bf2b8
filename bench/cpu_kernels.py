"""The model runner on the CPU, beside transformers in the same process: load, prefill, decode.

    python -m bench.cpu_kernels [--threads 2] [--dtype float32] [--kernels auto] [--peer]
                                 [--int8]

`--int8` measures the same model with 8-bit weights as the peer.
Each figure is the best of `--repeat` runs; with a peer both sides take turns, so that load on
the machine meets both.  Decode is greedy: `--prompt` tokens in, `--new` tokens out,
prefill included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sglc.runtime.batch import Batch, Row
from sglc.runtime.model_runner import ModelRunner, load_runner
from sglc.runtime.models.config import config_from_gguf
from sglc.runtime.models.llama_gguf import LlamaGGUF
from sglc.runtime.weights.fetch import fetch_default_model
from sglc.runtime.weights.gguf import GGUFFile


def step(runner: ModelRunner, ids: np.ndarray, done: int, slots: np.ndarray) -> np.ndarray:
    """One step of all sequences: ids (B, n) at position `done`; greedy next ids (B,)."""
    rows, n = ids.shape
    batch = Batch(ids.reshape(-1), np.tile(np.arange(done, done + n), rows),
                  slots[:, done:done + n].reshape(-1),
                  [Row(i * n, n, slots[i, :done + n]) for i in range(rows)],
                  np.arange(1, rows + 1) * n - 1)
    return runner.logits(runner.forward(batch)).argmax(-1).numpy()


def generate(runner: ModelRunner, prompts: np.ndarray, new: int) -> np.ndarray:
    """Greedy ids (B, new); slots are dealt out a step at a time, as an engine would."""
    rows, n = prompts.shape
    slots = np.concatenate((np.arange(rows * n).reshape(rows, n),
                            rows * n + np.arange(new * rows).reshape(new, rows).T), 1)
    out = [step(runner, prompts, 0, slots)]
    for i in range(new - 1):
        out.append(step(runner, out[-1][:, None], n + i, slots))
    return np.stack(out, 1)


def transformers_model(dtype: torch.dtype) -> Any:
    """transformers' Llama with the same weights (its own GGUF reader takes half a minute)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    file = GGUFFile(fetch_default_model())
    c = config_from_gguf(file.metadata, {n: t.shape for n, t in file.tensors.items()})
    source = LlamaGGUF(file, c)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.layers, num_attention_heads=c.heads, num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context_length, rms_norm_eps=c.rms_eps, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta}))
    model.load_state_dict({n: source.read(n) for n in source.names()}, strict=False)
    return model.to(dtype).eval()


def seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def report(what: str, tokens: int, repeat: int, ours: Callable[[], Any],
           peer: Callable[[], Any] | None, name: str) -> None:
    times: list[list[float]] = [[], []]
    for i in range(repeat + 1):
        times[0].append(seconds(ours))
        if peer is not None:
            times[1].append(seconds(peer))
        if i == 0:
            times = [[], []]  # warm-up
    line = f"{what:12} sglc {tokens / min(times[0]):7.1f} tok/s"
    if peer is not None:
        line += (f"   {name} {tokens / min(times[1]):7.1f} tok/s"
                 f"   ratio {min(times[1]) / min(times[0]):.2f}")
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--kernels", default="auto", choices=["auto", "torch"])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--prefills", type=int, nargs="*", default=[128, 512, 2048])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--peer", action="store_true", help="measure transformers too")
    parser.add_argument("--int8", action="store_true", help="measure 8-bit weights too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path, rng = fetch_default_model(), np.random.default_rng(0)

    load = min(seconds(lambda: load_runner(path, dtype=args.dtype, kernels=args.kernels))
               for _ in range(args.repeat))
    runner, _ = load_runner(path, dtype=args.dtype, kernels=args.kernels)
    chosen = dict(runner.kernels.backends)["linear"]
    print(f"load {load:.2f} s   {args.dtype}, {args.threads} threads, linear: {chosen}")
    runner.allocate(max([b * (args.prompt + args.new) for b in args.batches] + args.prefills))
    model = transformers_model(runner.dtype) if args.peer else None
    small = None
    if args.int8:
        small, _ = load_runner(path, quantization="int8")
        small.allocate(max([b * (args.prompt + args.new) for b in args.batches] + args.prefills))
    name = "int8" if args.int8 else "transformers"

    def peer_generate(ids: np.ndarray, new: int) -> Callable[[], Any] | None:
        if small is not None:
            return lambda: generate(small, ids, new)
        if model is None:
            return None
        return lambda: model.generate(
            torch.from_numpy(ids), attention_mask=torch.ones(ids.shape, dtype=torch.int64),
            max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=2)

    for n in args.prefills:
        ids = rng.integers(5, 49000, (1, n))
        report(f"prefill {n}", n, args.repeat,
               lambda ids=ids: generate(runner, ids, 1), peer_generate(ids, 1), name)
    for rows in args.batches:
        ids = rng.integers(5, 49000, (rows, args.prompt))
        report(f"batch {rows}", rows * args.new, args.repeat,
               lambda ids=ids: generate(runner, ids, args.new), peer_generate(ids, args.new),
               name)


if __name__ == "__main__":
    main()
