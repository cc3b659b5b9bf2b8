"""Every kernel but attention on a GPU, in the shapes of Llama 3.1 8B: first right, then how fast.

    python -m bench.gpu_kernels [--rows 1 4 16 64 256 512 1024] [--sustained 10]

Times are device time: medians over replays of a graph.  Weights and logits go around so that no
cache holds them; activations are in the cache, as they are between two kernels of a model.
Rates count what must be read and written once.  `torch` is the same work in PyTorch operations,
`cuBLAS` the product alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm

from bench.gpu_timing import copies, microseconds
from sglc.kernels.draws import Draws
from sglc.kernels.embed_triton import embed_triton
from sglc.kernels.few_logits import few_logits_torch
from sglc.kernels.few_logits_triton import few_logits_triton
from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import fused_linear_triton, pack_triton
from sglc.kernels.logprobs_triton import logprobs_triton
from sglc.kernels.rms_norm import rms_norm_torch
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.rope import rope_frequencies
from sglc.kernels.rope_store import rope_store_torch, rope_table
from sglc.kernels.rope_store_triton import rope_store_triton
from sglc.kernels.row_masks import MaskRows
from sglc.kernels.row_masks_triton import row_masks_triton
from sglc.kernels.sample import sample_torch
from sglc.kernels.sample_triton import sample_triton
from sglc.kernels.silu_mul import silu_mul_torch
from sglc.kernels.silu_mul_triton import silu_mul_triton

HIDDEN, HEADS, GROUPS, DIM, MIDDLE, VOCAB = 4096, 32, 8, 128, 14336, 128256
BF16 = torch.bfloat16


def randn(*size: int, dtype: torch.dtype = BF16) -> Tensor:
    """Random normal numbers on the GPU."""
    return torch.randn(size, dtype=dtype, device="cuda")


def right(name: str, found: Tensor, exact: Tensor, limit: float) -> None:
    """Assert that `found` is `exact` up to `limit` of its largest value."""
    error = float((found.float() - exact.float()).abs().max() / exact.float().abs().max())
    assert error <= limit, f"{name}: error {error:.2e}"


def line(name: str, rows: int, took: float, nbytes: float = 0, flops: float = 0,
         **others: float) -> None:
    """Print one measurement; `others` are times of other ways."""
    rate = f"{nbytes / took / 1e6:5.2f} TB/s" if nbytes else " " * 10
    speed = f"{flops / took / 1e6:4.0f} TFLOP/s" if flops else " " * 12
    beside = "  ".join(f"{k} {v:.1f} us ({v / took:.2f}x)" for k, v in others.items())
    print(f"{name:14} {rows:5} rows {took:9.2f} us  {rate}  {speed}  {beside}", flush=True)


def small_kernels(rows: int) -> None:
    """Norms, rope with the store, the gate, the embedding."""
    x, w = randn(rows, HIDDEN), randn(HIDDEN)
    right("rms_norm", rms_norm_triton(x, w, 1e-5),
          rms_norm_torch(x.float(), w.float(), 1e-5), 8e-3)
    line("rms_norm", rows, microseconds(lambda i: rms_norm_triton(x, w, 1e-5)), 2 * x.nbytes,
         torch=microseconds(lambda i: rms_norm(x, (HIDDEN,), w, 1e-5)))

    qkv = randn(rows, (HEADS + 2 * GROUPS) * DIM)
    table = rope_table(rope_frequencies(DIM, 5e5).cuda(), 8192)
    positions = torch.randint(0, 8192, (rows,), device="cuda")
    slots = torch.randperm(20_000, device="cuda")[:rows]
    pools = [torch.zeros(20_000, 2, GROUPS, DIM, dtype=BF16, device="cuda") for _ in range(2)]
    right("rope_store", rope_store_triton(qkv, positions, slots, table, pools[0]),
          rope_store_torch(qkv.float(), positions, slots, table, pools[1]), 8e-3)
    right("rope_store", pools[0], pools[1], 8e-3)
    line("rope_store", rows, microseconds(
        lambda i: rope_store_triton(qkv, positions, slots, table, pools[0])), 2 * qkv.nbytes)

    both = randn(rows, 2 * MIDDLE)
    right("silu_mul", silu_mul_triton(both), silu_mul_torch(both.float()), 8e-3)
    line("silu_mul", rows, microseconds(lambda i: silu_mul_triton(both)), 1.5 * both.nbytes,
         torch=microseconds(lambda i: silu_mul_torch(both)))

    embedding = randn(VOCAB, HIDDEN)
    ids = torch.randint(0, VOCAB, (rows,), device="cuda")
    assert torch.equal(embed_triton(ids, embedding), embedding[ids])
    line("embed", rows, microseconds(lambda i: embed_triton(ids, embedding)), 2 * x.nbytes,
         torch=microseconds(lambda i: embedding[ids]))


def products(rows_list: Sequence[int]) -> None:
    """The products of a layer and of the head, with what is fused to them."""
    forms: dict[str, tuple[int, int, dict[str, Any]]] = {
        "qkv+norm": ((HEADS + 2 * GROUPS) * DIM, HIDDEN, {"norm": randn(HIDDEN)}),
        "out+residual": (HIDDEN, HIDDEN, {}),
        "gate_up+norm": (2 * MIDDLE, HIDDEN, {"norm": randn(HIDDEN), "gated": True}),
        "down+residual": (HIDDEN, MIDDLE, {}),
        "head": (VOCAB, HIDDEN, {"out_dtype": torch.float32}),
    }
    for name, (outs, width, extra) in forms.items():
        product(name, outs, width, extra, rows_list)
        torch.cuda.empty_cache()


def product(name: str, outs: int, width: int, extra: dict[str, Any],
            rows_list: Sequence[int]) -> None:
    """One of them."""
    weights = [pack_triton(w) for w in copies(lambda: randn(outs, width) / width**0.5)]

    def measure(rows: int) -> None:
        x = randn(rows, width)
        more = {"residual": randn(rows, outs)} if "residual" in name else {}
        exact = fused_linear_torch(
            x.float(), weights[0].weight.float(), extra.get("norm"), 1e-5,
            gated=extra.get("gated", False), **{k: v.float() for k, v in more.items()})
        right(name, fused_linear_triton(x, weights[0], eps=1e-5, **extra, **more), exact, 1.6e-2)
        took = microseconds(lambda i: fused_linear_triton(x, weights[i], eps=1e-5, **extra, **more),
                            len(weights))
        blas = microseconds(lambda i: linear(x, weights[i].weight), len(weights))
        written = rows * outs * (0.5 if extra.get("gated") else 1) * 2
        line(name, rows, took, weights[0].weight.nbytes + x.nbytes + written,
             2 * rows * outs * width, cuBLAS=blas)

    for rows in rows_list:
        measure(rows)


def layers(rows: int) -> None:
    """A layer without its attention, one after the other over several layers' weights."""
    kv = (HEADS + 2 * GROUPS) * DIM
    weights = [[pack_triton(randn(o, w) / w**0.5) for o, w in (
        (kv, HIDDEN), (HIDDEN, HIDDEN), (2 * MIDDLE, HIDDEN), (HIDDEN, MIDDLE))] for _ in range(4)]
    gain, start = torch.ones(HIDDEN, dtype=BF16, device="cuda"), randn(rows, HIDDEN)
    table = rope_table(rope_frequencies(DIM, 5e5).cuda(), 8192)
    positions = torch.randint(0, 8192, (rows,), device="cuda")
    slots = torch.randperm(20_000, device="cuda")[:rows]
    pool = torch.zeros(20_000, 2, GROUPS, DIM, dtype=BF16, device="cuda")

    def fused(i: int, x: Tensor) -> Tensor:
        qkv, out, gate_up, down = weights[i]
        q = rope_store_triton(fused_linear_triton(x, qkv, gain, 1e-5), positions, slots, table,
                              pool)
        x = fused_linear_triton(q.view(rows, HIDDEN), out, residual=x)
        y = fused_linear_triton(x, gate_up, gain, 1e-5, gated=True)
        return fused_linear_triton(y, down, residual=x)

    def plain(i: int, x: Tensor) -> Tensor:
        qkv, out, gate_up, down = (w.weight for w in weights[i])
        q = rope_store_triton(linear(rms_norm(x, (HIDDEN,), gain, 1e-5), qkv), positions, slots,
                              table, pool)
        x = x + linear(q.view(rows, HIDDEN), out)
        y = silu_mul_torch(linear(rms_norm(x, (HIDDEN,), gain, 1e-5), gate_up))
        return x + linear(y, down)

    found, exact = start.clone(), start.clone()
    for i in range(len(weights)):
        found, exact = fused(i, found), plain(i, exact)
    right("layers", found, exact, 3e-2)
    line("layer", rows, microseconds(lambda i: fused(i, start), len(weights)),
         sum(w.weight.nbytes for w in weights[0]),
         2 * rows * sum(w.weight.numel() for w in weights[0]),
         torch=microseconds(lambda i: plain(i, start), len(weights)))


def draws_for(rows: int, filtered: bool, heat: float) -> Draws:
    """Draws of `rows` rows alike."""
    def full(value: float, kind: torch.dtype = torch.float64) -> Tensor:
        return torch.full((rows,), value, dtype=kind, device="cuda")

    key = torch.randint(-2**63, 2**63 - 1, (rows,), device="cuda")
    return Draws(full(heat), key, full(3, torch.int64), full(0, torch.int32),
                 full(0.9 if filtered else 1.0), full(0.0), filtered=filtered)


def sampling(rows: int) -> None:
    """From logits to the next step's inputs."""
    logits = copies(lambda: randn(rows, VOCAB, dtype=torch.float32) * 4)
    words = VOCAB // 32
    mask = torch.full((1, words), -1, dtype=torch.int32, device="cuda")
    greedy, hot, nucleus = (draws_for(rows, f, t) for f, t in
                            ((False, 0.0), (False, 1.0), (True, 1.0)))
    fifty = replace(nucleus, top_k=nucleus.top_k + 50)
    penalised = replace(
        hot, tally=torch.zeros(rows, VOCAB, dtype=torch.int32, device="cuda"),
        tally_row=torch.arange(rows, device="cuda", dtype=torch.int32),
        penalties=torch.tensor([[1.1, 0.1, 0.1]] * rows, dtype=torch.float64, device="cuda"))
    few = min(rows, 64)
    for name, draws in (("greedy", greedy), ("noise", hot), ("top-p", nucleus),
                        ("top-k+top-p", fifty), ("penalties", penalised)):
        found = sample_triton(logits[0], mask, draws)
        cut = replace(draws, **{k: getattr(draws, k)[:few] for k in (
            "temperature", "key", "index", "top_k", "top_p", "min_p")},
            tally_row=None if draws.tally_row is None else draws.tally_row[:few],
            penalties=None if draws.penalties is None else draws.penalties[:few])
        differ = int((found[:few] != sample_torch(logits[0][:few], mask, cut)).sum())
        assert differ == 0, f"{name}: {differ} of {few} rows differ"
        others = {}
        if name == "greedy":
            others["torch"] = microseconds(lambda i: logits[i].argmax(1), len(logits))
        line(name, rows, microseconds(
            lambda i, d=draws: sample_triton(logits[i], mask, d), len(logits)),
            logits[0].nbytes, **others)
    tokens = sample_triton(logits[0], mask, greedy)
    line("logprobs", rows, microseconds(lambda i: logprobs_triton(logits[i], tokens), len(logits)),
         logits[0].nbytes,
         torch=microseconds(lambda i: torch.log_softmax(logits[i], 1), len(logits)))
    line("top 5 logprobs", rows, microseconds(
        lambda i: logprobs_triton(logits[i], tokens, 5), len(logits)), logits[0].nbytes)
    nobody = torch.full((rows, 4), -1, dtype=torch.int32, device="cuda")
    own = torch.randint(-2**31, 2**31 - 1, (rows, words), dtype=torch.int32, device="cuda")
    masks = MaskRows(mask[0], nobody[:, :1].contiguous(), nobody, words=own,
                     words_row=torch.arange(rows, dtype=torch.int32, device="cuda"))
    line("row_masks", rows, microseconds(lambda i: row_masks_triton(masks)), 2 * own.nbytes)


def pruned_head(rows: int) -> None:
    """Logits of 500 tokens a row, against the whole head."""
    heads, hidden = copies(lambda: randn(VOCAB, HIDDEN) / 64), randn(rows, HIDDEN)
    ids = torch.from_numpy(np.sort(np.stack([np.random.default_rng(r).choice(
        VOCAB, 500, replace=False) for r in range(rows)]))).int().cuda()
    right("few_logits", few_logits_triton(hidden, heads[0], ids),
          few_logits_torch(hidden[:], heads[0], ids), 1e-5)
    line("few_logits", rows, microseconds(
        lambda i: few_logits_triton(hidden, heads[i], ids), len(heads)),
        rows * 500 * HIDDEN * 2,
        cuBLAS=microseconds(lambda i: linear(hidden, heads[i]), len(heads)))


def sustained(seconds: float) -> None:
    """The rate of 8192 x 28672 x 4096 a second after the other."""
    x, w = randn(8192, HIDDEN), randn(2 * MIDDLE, HIDDEN) / 64
    out = linear(x, w)
    torch.cuda.synchronize()
    flops, start = 2 * 8192 * 2 * MIDDLE * HIDDEN, time.perf_counter()
    rates = []
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        for _ in range(400):
            torch.mm(x, w.t(), out=out)
        torch.cuda.synchronize()
        rates.append(400 * flops / (time.perf_counter() - before) / 1e12)
    print(f"sustained 8192 x 28672 x 4096, {seconds:.0f} s: first {rates[0]:.0f}, median "
          f"{sorted(rates)[len(rates) // 2]:.0f}, last {rates[-1]:.0f} TFLOP/s")


def bandwidth() -> None:
    """Reading and writing 4 GB."""
    source = torch.empty(1 << 30, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    line("read, write", 1, microseconds(lambda i: torch.neg(source, out=target)), 2 * source.nbytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256, 512, 1024])
    parser.add_argument("--sustained", type=float, default=10.0, metavar="SECONDS")
    args = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    parts: list[Callable[[], None]] = [
        bandwidth, *(lambda r=r: layers(r) for r in args.rows), lambda: products(args.rows),
        *(lambda r=r: small_kernels(r) for r in args.rows),
        *(lambda r=r: sampling(r) for r in args.rows if r <= 256),
        *(lambda r=r: pruned_head(r) for r in args.rows if r <= 64),
    ]
    wrong = []
    for part in parts:
        try:
            part()
        except AssertionError as e:
            wrong.append(f"WRONG {e}")
            print(wrong[-1], flush=True)
        torch.cuda.empty_cache()
    if args.sustained:
        sustained(args.sustained)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
