"""Attention on the GPU: correctness, then time a layer, on the head shape of Llama-3.1-8B.

`python -m bench.gpu_attention [--only prefill,decode,shared,threshold] [--tune] [--flashinfer]`

A case is captured in one CUDA graph over several layers, each with its own pool, so that the L2
cache serves no layer twice; times are medians of replays divided by the layers.  Slots are in
shuffled runs of 16.  The floor of a decode case is its distinct bytes of keys and values at
4.3 TB/s.  Beside it: torch's attention on keys and values already gathered (flash, cuDNN), and
FlashInfer if it can be imported and is asked for (it compiles for a minute).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sglc.kernels.attention_shape import Grid, Limits, Shape
from sglc.kernels.attention_units import plan_units, shared_runs
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.kernels.prefix_tree import Shared, find_shared
from sglc.kernels.unit_attention import (
    Launch,
    Tuning,
    UnitAttention,
    default_shape,
    tuning,
)

HEADS, KV_HEADS, DIM = 32, 8, 128
BANDWIDTH = 4.3e12
BYTES = 2 * KV_HEADS * DIM * 2  # a token's keys and values
PAGE = 16


@dataclass(frozen=True, slots=True)
class Case:
    """Rows over slots; `flops` of the causal products; `same`: (rows, new, keys) if all equal."""

    name: str
    rows: Rows
    table: np.ndarray
    slots: int
    same: tuple[int, int, int] | None

    @property
    def floor(self) -> float:
        """Microseconds to read what is distinct."""
        return len(np.unique(self.table)) * BYTES / BANDWIDTH * 1e6

    @property
    def flops(self) -> float:
        """Of the two products, causal."""
        n, length = self.rows.tokens, self.rows.lengths
        return float(4 * HEADS * DIM * (n * (2 * length - n + 1) // 2).sum())


def case(name: str, sequences: Sequence[tuple[Sequence[int], int]], seed: int = 0) -> Case:
    """One row for (lengths of nested prefixes by group, new tokens), see `grouped`."""
    rng = np.random.default_rng(seed)
    runs: dict[tuple[int, ...], np.ndarray] = {}
    used = 0
    contexts = []
    total = 0
    for path, _ in sequences:
        for depth in range(0, len(path), 2):
            total += -(-path[depth + 1] // PAGE) if path[:depth + 2] not in runs else 0
            runs.setdefault(tuple(path[:depth + 2]), np.empty(0))
    pages = rng.permutation(total)
    runs.clear()
    for path, _ in sequences:
        parts = []
        for depth in range(0, len(path), 2):
            key, length = tuple(path[:depth + 2]), path[depth + 1]
            if key not in runs:
                count = -(-length // PAGE)
                runs[key] = (pages[used:used + count, None] * PAGE
                             + np.arange(PAGE)).reshape(-1)[:length]
                used += count
            parts.append(runs[key])
        contexts.append(np.concatenate(parts))
    tokens = [n for _, n in sequences]
    lengths = [len(c) for c in contexts]
    rows = Rows.of(np.cumsum([0, *tokens[:-1]]).tolist(), tokens, lengths,
                   np.cumsum([0, *lengths[:-1]]).tolist())
    same = ((len(tokens), tokens[0], lengths[0])
            if len(set(tokens)) == len(set(lengths)) == 1 else None)
    return Case(name, rows, np.concatenate(contexts).astype(np.int32), total * PAGE, same)


def plain(rows: int, new: int, keys: int) -> Case:
    """`rows` rows that share nothing."""
    return case(f"{rows} x {new} new of {keys}", [((i, keys), new) for i in range(rows)])


def grouped(groups: Sequence[tuple[int, int]], own: int, top: int = 0, new: int = 1,
            name: str = "") -> Case:
    """Groups of (rows, shared tokens), each row with `own` more; all below `top` tokens."""
    head = (0, top) if top else ()
    ids = iter(range(1 << 30))
    return case(name or f"{len(groups)} x {groups[0][0]} x ({groups[0][1]} + {own})",
                [((*head, g + 1, shared, next(ids), own), new)
                 for g, (rows, shared) in enumerate(groups) for _ in range(rows)])


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


class Bench:
    """Runs cases with one shape and tuning."""

    def __init__(self, shape: Shape, tune: Tuning) -> None:
        self.shape, self.tune = shape, tune

    def runs(self, c: Case, always: bool = True) -> list[Shared]:
        """Shared runs; all of them, or those that are thought to pay."""
        if always:
            few = np.flatnonzero(c.rows.tokens * self.shape.group < self.shape.tiles[1])
            return find_shared(c.rows, c.table, few)
        return shared_runs(c.rows, c.table, self.shape)

    def prepare(self, c: Case, q: Tensor, runs: Sequence[Shared], full: bool
                ) -> tuple[Callable[[Tensor, Grid | None], Tensor], Grid, float]:
        """(attention of a pool with a grid, the case's grid, us of host time for the work list)."""
        limits = Limits.for_tokens(c.rows.total, self.shape)
        host = host_us(lambda: plan_units(c.rows, runs, self.shape, limits))
        units = plan_units(c.rows, runs, self.shape, limits if full else None)
        if not full:
            grid = replace(units.grid, merged=c.rows.total)
            limits = Limits(grid, len(units.token), units.parts)
        attend = UnitAttention(self.shape, limits, q.dtype, "cuda", self.tune)
        attend.load(units)
        table = torch.from_numpy(c.table).cuda()
        out = torch.full_like(q, float("nan"))
        torch.cuda.synchronize()
        grid = units.grid
        if full:  # as a graph for steps with such classes of units has it
            grid = Grid(*((room if n else 0) for n, room in zip(
                astuple(grid), astuple(limits.grid), strict=True)))
        return lambda pool, only: attend(q, pool, table, out, only or grid), grid, host

    def time(self, c: Case, pools: list[Tensor], q: Tensor, runs: Sequence[Shared] = (),
             check: bool = True, full: bool = False) -> tuple[float, float]:
        """(us a layer, us of host time); wrong results raise."""
        attend, _, host = self.prepare(c, q, runs, full)
        if check:
            out = attend(pools[0], None)
            some = np.unique(np.linspace(0, len(c.rows.starts) - 1, 12).astype(int))
            few = Rows(*(getattr(c.rows, f)[some] for f in Rows.__slots__))
            which = np.concatenate([np.arange(s, s + n) for s, n in
                                    zip(few.starts, few.tokens, strict=True)])[::7]
            if c.rows.lengths.max() * few.tokens.max() <= 1 << 22:
                table = torch.from_numpy(c.table).cuda()
                expected = paged_attention_torch(q, pools[0], table, few)[which]
                error = (out[which].float() - expected).norm() / expected.norm()
                assert float(error) < 1e-2, (c.name, float(error))
            assert not out.isnan().any(), c.name
        return median_us(lambda i: attend(pools[i], None), len(pools)), host

    def split(self, c: Case, pools: list[Tensor], q: Tensor, runs: Sequence[Shared]) -> str:
        """us of narrow, middle, wide units and of merging, each launched alone."""
        attend, grid, _ = self.prepare(c, q, runs, False)
        alone = (Grid(grid.narrow, 0, 0, 0), Grid(0, grid.middle, 0, 0),
                 Grid(0, 0, grid.wide, 0), Grid(0, 0, 0, grid.merged))
        return ", ".join(
            f"{median_us(lambda i, g=g: attend(pools[i], g), len(pools)):.1f}"  # type: ignore
            if g != Grid(0, 0, 0, 0) else "-" for g in alone)


def inputs(c: Case) -> tuple[list[Tensor], Tensor]:
    """Pools of enough layers to leave the L2 cache, and queries."""
    layers = int(max(2, min(32, 2**28 // (c.slots * BYTES) + 1)))
    pools = [torch.empty(c.slots, 2, KV_HEADS, DIM, device="cuda", dtype=torch.bfloat16).normal_()
             for _ in range(layers)]
    q = torch.randn(c.rows.total, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    return pools, q


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


PREFILL = [plain(8, 1024, 1024), plain(1, 8192, 8192), plain(16, 128, 2176), plain(4, 512, 4096),
           case("mixed: 96 x 1 of 1500, 2 x 1024 new",
                [*(((i, 1500), 1) for i in range(96)), ((100, 1024), 1024), ((101, 3000), 1024)])]
DECODE = [plain(b, 1, k) for b in (1, 16, 64, 256) for k in (128, 1024, 4096)] + [
    case("ragged 64: 16 .. 8192", [((i, int(16 * 1.104**i)), 1) for i in range(64)])]
SHARED = [*(grouped([(n, s)], own) for n, s, own in (
    (8, 1024, 128), (8, 4096, 128), (16, 4096, 128), (64, 1024, 128), (64, 4096, 128),
    (64, 4096, 1024), (64, 16384, 128), (256, 1024, 64), (256, 4096, 64))),
    grouped([(16, 2048)] * 32, 128), grouped([(512, 4096)], 32),
    grouped([(3, 700), (40, 2048), (7, 5000), (1, 900), (90, 300), (20, 1111)], 100,
            name="ragged groups, 161 rows"),
    grouped([(16, 512)] * 16, 64, top=2048, name="two levels: 2048 / 16 x 512 / 16 x 64"),
    grouped([(4, 160)] * 32, 64, new=8, name="jumps: 32 x 4 x (160 + 64), 8 new")]


def prefill(b: Bench, others: bool, flash: bool) -> None:
    print("\nprefill | us | TFLOP/s | flash | cuDNN | flashinfer | host us", flush=True)
    for c in PREFILL:
        pools, q = inputs(c)
        us, host = b.time(c, pools[:4], q)
        line = f"{c.name} | {us:.1f} | {c.flops / us / 1e6:.0f}"
        if others:
            line += "".join(f" | {torch_us(c, pools, q, k):.1f}" for k in (
                SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION))
            line += f" | {flashinfer_us(c, pools[:4], q) if flash else float('nan'):.1f}"
        print(f"{line} | {host:.0f}", flush=True)


def decode(b: Bench, others: bool, flash: bool) -> None:
    print("\ndecode | us | full grid | floor | ratio | flash | flashinfer | host us", flush=True)
    for c in DECODE:
        pools, q = inputs(c)
        us, host = b.time(c, pools, q)
        full, _ = b.time(c, pools, q, check=False, full=True)
        line = f"{c.name} | {us:.1f} | {full:.1f} | {c.floor:.1f} | {us / c.floor:.2f}"
        if others:
            line += f" | {torch_us(c, pools, q, SDPBackend.FLASH_ATTENTION):.1f}"
            line += f" | {flashinfer_us(c, pools, q) if flash else float('nan'):.1f}"
        print(f"{line} | {host:.0f}", flush=True)


def shared(b: Bench, others: bool, flash: bool) -> None:
    print("\nshared | us | narrow, middle, wide, merge alone | full grid | unshared | floor "
          "| flashinfer | host find, plan us",
          flush=True)
    for c in SHARED:
        pools, q = inputs(c)
        runs = b.runs(c, False) or b.runs(c)
        found = host_us(lambda c=c: b.runs(c, False))  # type: ignore[misc]
        us, host = b.time(c, pools, q, runs)
        line = f"{c.name} | {us:.1f} | {b.split(c, pools, q, runs)}"
        if others:
            full, _ = b.time(c, pools, q, runs, check=False, full=True)
            bare, _ = b.time(c, pools, q, check=False)
            line += f" | {full:.1f} | {bare:.1f} | {c.floor:.1f}"
            line += f" | {flashinfer_us(c, pools, q) if flash else float('nan'):.1f}"
        print(f"{line} | {found:.0f}, {host:.0f}", flush=True)


def threshold(b: Bench) -> None:
    print("\nshared / unshared time (*: shared by default), 128 own tokens: groups x rows | "
          + " | ".join(str(s) for s in (128, 256, 512, 1024, 2048, 4096)), flush=True)
    for groups, rows in ((1, 2), (1, 4), (1, 8), (1, 16), (1, 64), (16, 2), (16, 4), (16, 16)):
        cells = []
        for tokens in (128, 256, 512, 1024, 2048, 4096):
            c = grouped([(rows, tokens)] * groups, 128)
            pools, q = inputs(c)
            with_, _ = b.time(c, pools, q, b.runs(c), check=False)
            without, _ = b.time(c, pools, q, check=False)
            cells.append(f"{with_ / without:.2f}{'*' if b.runs(c, False) else ''}")
        print(f"{groups} x {rows} | {' | '.join(cells)}", flush=True)


TRIED = (  # class, (keys, warps, stages), units at once on a multiprocessor
    *((0, *x) for x in (((64, 4, 3), 4), ((64, 4, 5), 3), ((128, 4, 3), 3), ((64, 2, 3), 4),
                        ((32, 4, 5), 5))),
    *((1, *x) for x in (((64, 4, 3), 2), ((64, 4, 5), 1), ((32, 4, 5), 2))),
    *((2, *x) for x in (((64, 4, 3), 2), ((32, 4, 5), 2), ((128, 8, 3), 1))))


def tune(shape: Shape, base: Tuning, count: int) -> None:
    """Launches of each class on cases that stand for the rest, the others as they are."""
    narrow = [*(DECODE[i] for i in (1, 4, 6, 7, 9, 10, 12)), *(SHARED[i] for i in (0, 3, 9, 10))]
    middle = [SHARED[i] for i in (0, 1, 3, 4, 6, 9, 13)]
    wide = [*PREFILL[:3], SHARED[4], SHARED[6], SHARED[8], SHARED[10]]

    def report(name: str, b: Bench, cases: Sequence[Case]) -> None:
        cells = []
        for c in cases:
            pools, q = inputs(c)
            try:
                cells.append(f"{b.time(c, pools[:8], q, b.runs(c), check=False)[0]:.1f}")
            except Exception as e:  # what does not fit shared memory
                cells.append(type(e).__name__)
        print(f"{name}: {' | '.join(cells)}", flush=True)

    for kind, launch, fit in TRIED:
        classes, programs = list(base.classes), list(shape.programs)
        classes[kind], programs[kind] = Launch(*launch), fit * count
        report(f"{('narrow', 'middle', 'wide')[kind]} {launch} x {fit}",
               Bench(replace(shape, programs=tuple(programs),
                             wide_from=4096 if kind == 1 else shape.wide_from),
                     replace(base, classes=tuple(classes))), (narrow, middle, wide)[kind])
    report("wide from 128", Bench(replace(shape, wide_from=128), base), wide)
    for overlap, half in ((True, True), (False, True), (True, False)):
        b = Bench(shape, replace(base, overlap=overlap, half_partials=half))
        report(f"overlap {overlap} half {half}", b, [*narrow[:4], *middle])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="prefill,decode,shared,threshold")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--alone", action="store_true", help="nothing beside it")
    parser.add_argument("--flashinfer", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    properties = torch.cuda.get_device_properties(0)
    shape = default_shape(HEADS, KV_HEADS, DIM, torch.bfloat16,
                          properties.multi_processor_count)
    print(properties.name, torch.__version__, flush=True)
    if args.tune:
        tune(shape, tuning(torch.bfloat16, "cuda"), properties.multi_processor_count)
    bench = Bench(shape, tuning(torch.bfloat16, "cuda"))
    for name, run in (("prefill", prefill), ("decode", decode), ("shared", shared)):
        if name in args.only.split(","):
            run(bench, not args.alone, args.flashinfer)
    if "threshold" in args.only.split(","):
        threshold(bench)


if __name__ == "__main__":
    main()
