"""Attention on the GPU: correctness, then time a layer, on the head shape of Llama-3.1-8B.

`python -m bench.gpu_attention [--only prefill,long,decode,shared,threshold] [--tune] [--cuda]`
`python -m bench.gpu_attention --only wide` (wide units in Triton, and in CUDA C++ in all forms)
`python -m bench.gpu_attention --flashinfer` (prefill and long rows beside FlashInfer's)

A case is captured in one CUDA graph over several layers, each with its own pool, so that the L2
cache serves no layer twice; times are medians of replays divided by the layers.  The floor of a
decode case is its distinct bytes of keys and values at 4.3 TB/s.  Beside it: torch's attention on
keys and values already gathered (flash, cuDNN), and FlashInfer if it is asked for (it compiles for
a minute when first used).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from bench.attention_cases import (
    DECODE,
    DIM,
    HEADS,
    KV_HEADS,
    LONG,
    PREFILL,
    SHARED,
    Case,
    grouped,
    inputs,
)
from bench.attention_peers import (
    backends,
    flashinfer_us,
    host_us,
    long_rows,
    long_rows_us,
    median_us,
    replays,
    torch_us,
)
from sglc.kernels.attention_shape import Grid, Limits, Shape
from sglc.kernels.attention_units import plan_units, shared_runs
from sglc.kernels.hopper_attention_cuda import HopperAttentionForm
from sglc.kernels.long_rows import long_span, ragged, split
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.kernels.prefix_tree import Shared, find_shared
from sglc.kernels.unit_attention import (
    Launch,
    Tuning,
    UnitAttention,
    default_shape,
    tuning,
)


class Bench:
    """Runs cases with one shape and tuning; form: of wide units, if they are in CUDA C++."""

    def __init__(self, shape: Shape, tune: Tuning, form: HopperAttentionForm | None = None
                 ) -> None:
        self.shape, self.tune, self.form = shape, tune, form

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
        attend = UnitAttention(self.shape, limits, q.dtype, "cuda", self.tune, self.form)
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
        return median_us(lambda i: attend(pools[i], None), len(pools), replays(c)), host

    def split(self, c: Case, pools: list[Tensor], q: Tensor, runs: Sequence[Shared]) -> str:
        """us of narrow, middle, wide units and of merging, each launched alone."""
        attend, grid, _ = self.prepare(c, q, runs, False)
        alone = (Grid(grid.narrow, 0, 0, 0), Grid(0, grid.middle, 0, 0),
                 Grid(0, 0, grid.wide, 0), Grid(0, 0, 0, grid.merged))
        return ", ".join(
            f"{median_us(lambda i, g=g: attend(pools[i], g), len(pools)):.1f}"  # type: ignore
            if g != Grid(0, 0, 0, 0) else "-" for g in alone)


def prefill(b: Bench, others: bool, flash: bool) -> None:
    names = backends() if flash else ()
    print("\nprefill | us | TFLOP/s | flash | cuDNN | host us" + "".join(
        f" | FlashInfer {name}: us | TFLOP/s | plan us" for name in names)
        + (f" | {names[-1]} for long rows alone, us" if names else ""), flush=True)
    for c in PREFILL:
        pools, q = inputs(c)
        us, host = b.time(c, pools[:4], q)
        line = f"{c.name} | {us:.1f} | {c.flops / us / 1e6:.0f}"
        line += "".join(f" | {torch_us(c, pools, q, k) if others else float('nan'):.1f}" for k in (
            SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)) + f" | {host:.0f}"
        ours = b.prepare(c, q, (), False)[0](pools[0], None)
        for name in names:
            us, host = long_rows_us(c, pools[:4], q, name, ours)
            line += f" | {us:.1f} | {c.flops / us / 1e6:.0f} | {host:.0f}"
        if names:
            line += f" | {parted_us(b, c, pools[:4], q, names[-1], ours):.1f}"
        print(line, flush=True)


def parted_us(b: Bench, c: Case, pools: list[Tensor], q: Tensor, backend: str, expected: Tensor
              ) -> float:
    """us a layer where long rows are FlashInfer's and others are not; NaN if all are alike."""
    kernel = long_rows(backend)
    span = long_span(c.rows, kernel.worth)
    if span is None or span.last - span.first == len(c.rows.starts):
        return float("nan")
    mine, others = split(c.rows, span)
    launch = kernel.plan(ragged(mine, c.table))
    attend, _, _ = b.prepare(replace(c, rows=others), q, (), False)

    def both(pool: Tensor) -> Tensor:
        out = attend(pool, None)
        launch(q[span.start:span.stop], pool, out[span.start:span.stop])
        return out

    error = (both(pools[0]).float() - expected.float()).norm() / expected.float().norm()
    assert float(error) < 1e-2, (c.name, float(error))
    return median_us(lambda i: both(pools[i]), len(pools), replays(c))


def long(b: Bench, others: bool, flash: bool) -> None:
    if not flash or not backends():
        return
    name = backends()[-1]
    print(f"\nlong rows (*: given to FlashInfer {name}) | us | FlashInfer {name} | ratio",
          flush=True)
    for c in LONG:
        pools, q = inputs(c)
        us, _ = b.time(c, pools[:4], q, check=False)
        ours = b.prepare(c, q, (), False)[0](pools[0], None)
        its, _ = long_rows_us(c, pools[:4], q, name, ours)
        given = long_span(c.rows, long_rows(name).worth) is not None
        print(f"{c.name}{' *' if given else ''} | {us:.1f} | {its:.1f} | {its / us:.2f}",
              flush=True)


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


def wide(b: Bench) -> None:
    """Cases with wide units; prompts, a shared prefix, and all wide units of it alone."""
    shape = default_shape(HEADS, KV_HEADS, DIM, torch.bfloat16, b.shape.programs[1] // 2, True)
    base = HopperAttentionForm(torch.bfloat16, DIM, KV_HEADS, HEADS // KV_HEADS)
    forms = [base._replace(keys=keys, in_turn=turn, announced=announced) for keys in (128, 64)
             for turn in (True, False) for announced in (True, False)]
    benches = [b, *(Bench(shape, replace(b.tune, cuda=True), form) for form in forms)]
    print("\nwide units, us | Triton | " + " | ".join(
        f"{f.keys} keys{', in turn' * f.in_turn}{', waiting' * (not f.announced)}" for f in forms)
        + " | Triton's narrow, middle, wide, merge alone | CUDA's", flush=True)
    for c in [*PREFILL, *(SHARED[i] for i in (4, 6, 8, 10))]:
        pools, q = inputs(c)
        runs = b.runs(c, False)
        times = [f"{bench.time(c, pools[:8], q, runs)[0]:.1f}" for bench in benches]
        alone = [bench.split(c, pools[:8], q, runs) for bench in benches[:2]]
        print(f"{c.name} | {' | '.join((*times, *alone))}", flush=True)


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
    parser.add_argument("--only", help="sections, separated by commas")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--alone", action="store_true", help="nothing beside it")
    parser.add_argument("--flashinfer", action="store_true")
    parser.add_argument("--cuda", action="store_true", help="wide units in CUDA C++")
    args = parser.parse_args()
    everything = args.tune or not args.flashinfer
    only = (args.only or ("prefill,long,decode,shared,threshold" if everything
                          else "prefill,long")).split(",")
    torch.manual_seed(0)
    properties = torch.cuda.get_device_properties(0)
    shape = default_shape(HEADS, KV_HEADS, DIM, torch.bfloat16,
                          properties.multi_processor_count, args.cuda)
    print(properties.name, torch.__version__, flush=True)
    if args.tune:
        tune(shape, tuning(torch.bfloat16, "cuda"), properties.multi_processor_count)
    bench = Bench(shape, replace(tuning(torch.bfloat16, "cuda"), cuda=args.cuda))
    for name, run in (("prefill", prefill), ("long", long), ("decode", decode),
                      ("shared", shared)):
        if name in only:
            run(bench, not args.alone, args.flashinfer)
    if "wide" in only:
        wide(bench)
    if "threshold" in only:
        threshold(bench)


if __name__ == "__main__":
    main()
