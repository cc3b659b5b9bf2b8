"""Other attention kernels on the same steps, torch's and FlashInfer's, and how launches are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.attention_cases import DIM, HEADS, KV_HEADS, Case
from sglc.kernels.attention_shape import Shape
from sglc.kernels.flashinfer_prefill import FlashInferPrefill, backend_for
from sglc.kernels.long_rows import ragged


def median_us(launch: Callable[[int], object], layers: int, replays: int = 15) -> float:
    """Microseconds of `launch(layer)`, of a graph over all layers."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for i in range(layers):
            launch(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    repeat = max(1, 8 // layers)
    with torch.cuda.graph(graph):
        for _ in range(repeat):
            for i in range(layers):
                launch(i)
    times = []
    for i in range(replays + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        if i >= 2:
            times.append(start.elapsed_time(end))
    return float(np.median(times)) * 1e3 / layers / repeat


def host_us(work: Callable[[], object]) -> float:
    """Median microseconds of `work` on the host."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1e6


def torch_us(c: Case, pools: list[Tensor], q: Tensor, backend: SDPBackend) -> float:
    """torch's attention on gathered keys and values, heads repeated; equal rows only."""
    if c.same is None:
        return float("nan")
    rows, new, keys = c.same
    if new not in (1, keys) or rows * keys > 1 << 18:
        return float("nan")
    table = torch.from_numpy(c.table).cuda().long()
    kv = [p[table].view(rows, keys, 2, KV_HEADS, DIM) for p in pools[:2]]
    queries = q.view(rows, new, HEADS, DIM).transpose(1, 2)
    pairs = [[x[:, :, i].transpose(1, 2).repeat_interleave(HEADS // KV_HEADS, 1).contiguous()
              for i in (0, 1)] for x in kv]
    try:
        with sdpa_kernel(backend):
            return median_us(lambda i: torch.nn.functional.scaled_dot_product_attention(
                queries, *pairs[i % 2], is_causal=new > 1), len(pairs))
    except RuntimeError:
        return float("nan")


def flashinfer_us(c: Case, pools: list[Tensor], q: Tensor) -> float:
    """FlashInfer's paged FA2 prefill, tensor-core decode being the same kernel; page size 1."""
    import flashinfer

    space = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(space, "NHD", backend="fa2")
    ends = [np.append(0, a.cumsum()).astype(np.int32) for a in (c.rows.tokens, c.rows.lengths)]
    table = torch.from_numpy(np.concatenate([
        c.table[o:o + n] for o, n in zip(c.rows.offsets, c.rows.lengths, strict=True)])).cuda()
    wrapper.plan(torch.from_numpy(ends[0]).cuda(), torch.from_numpy(ends[1]).cuda(), table,
                 torch.ones(len(c.rows.starts), dtype=torch.int32, device="cuda"), HEADS,
                 KV_HEADS, DIM, 1, causal=True, q_data_type=q.dtype)
    out = torch.empty_like(q)
    return median_us(lambda i: wrapper.run(q, pools[i].unsqueeze(2), out=out), len(pools))


def backends() -> tuple[str, ...]:
    """FlashInfer's kernels for long rows on this GPU; the last is the one that the engine takes."""
    best = backend_for(torch.cuda.get_device_capability())
    return () if best is None else ("fa2",) if best == "fa2" else ("fa2", best)


def long_rows(backend: str) -> FlashInferPrefill:
    """As the engine has it."""
    return FlashInferPrefill(Shape(HEADS, KV_HEADS, DIM), torch.bfloat16, torch.device("cuda"),
                             backend)


def long_rows_us(c: Case, pools: list[Tensor], q: Tensor, backend: str, expected: Tensor
                 ) -> tuple[float, float]:
    """(us a layer of all rows by FlashInfer, us of host time for its plan); results unlike those
    expected of the first layer raise."""
    kernel = long_rows(backend)
    host = host_us(lambda: kernel.plan(ragged(c.rows, c.table)))
    launch = kernel.plan(ragged(c.rows, c.table))
    out = torch.empty_like(q)
    launch(q, pools[0], out)
    error = (out.float() - expected.float()).norm() / expected.float().norm()
    assert float(error) < 1e-2, (c.name, backend, float(error))
    return median_us(lambda i: launch(q, pools[i], out), len(pools), replays(c)), host


def replays(c: Case) -> int:
    """How often a step of so many products is timed."""
    return 5 if c.flops > 1e12 else 15
