"""The workload `router` with and without its branches read ahead: steps, prefill, wall time.

    python bench/router.py [--model hash|default|FILE|FOLDER] [--rows 1,8,64] [--rounds 5]
                           [--ride-tokens 0,64,256,1024] [--device cpu] [--load-format auto]

On the hash model (SmolLM2's tokenizer) a step takes `--step` milliseconds for up to `--balance`
tokens, and in proportion beyond.  Ways take turns in every round, each from an empty cache;
times are medians.  `lost`: prefill over its lower bound, which counts no loser.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import sglc as sgl
from sglc.progress import Progress
from sglc.workloads import WORKLOADS
from sglc.workloads.measure import Measured, measure, warm


def open_backend(args: argparse.Namespace) -> Any:
    """The model, with what it takes along set by `ride` later."""
    if args.model != "hash":
        return sgl.Engine(None if args.model == "default" else args.model, device=args.device,
                          load_format=args.load_format)
    model = sgl.HashModel("smollm2", kv_tokens=1 << 20)
    runner = model.core.runner
    forward = runner.forward

    def timed(batch: Any) -> Any:
        time.sleep(args.step / 1e3 * max(1.0, len(batch.ids) / args.balance))
        return forward(batch)

    runner.forward = timed  # type: ignore[method-assign]
    return model


def ride(backend: Any, tokens: int) -> None:
    """Let steps take so many tokens along."""
    backend.core.wait_idle()
    backend.core._loop.scheduler.builder.rides.limit = tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hash")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--rows", default="1,8,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ride-tokens", default="0,64,256,1024")
    parser.add_argument("--size", choices=("small", "full"), default="full")
    parser.add_argument("--tokens", type=int, help="of a generation; the size's, if not given")
    parser.add_argument("--step", type=float, default=10.0)
    parser.add_argument("--balance", type=float, default=256.0)
    args = parser.parse_args()
    workload = WORKLOADS["router"]
    ways = [int(n) for n in args.ride_tokens.split(",")]
    print("| rows | ride tokens | steps | prefill | lost | seconds | ratio (range) |")
    print("|---|---|---|---|---|---|---|")
    with open_backend(args) as backend:
        for rows in map(int, args.rows.split(",")):
            size = replace(getattr(workload, args.size), rows=rows)
            if args.tokens is not None:
                size = replace(size, tokens=args.tokens)
            program, batch = workload.program(size), workload.batch(size, 0)
            warm(program, batch, backend, "compiled")
            found: dict[int, list[Measured]] = {n: [] for n in ways}
            bar = Progress(args.rounds * len(ways), unit="run", leave=False)
            for turn in range(args.rounds):
                for n in ways if turn % 2 == 0 else ways[::-1]:
                    ride(backend, n)
                    found[n].append(measure(program, batch, backend, "compiled"))
                    bar.step()
            bar.close()
            for n, runs in found.items():
                m = runs[0]
                ratios = [a.seconds / b.seconds for a, b in zip(found[ways[0]], runs, strict=True)]
                print(f"| {rows} | {n} | {m.steps} | {m.prefill} | {m.prefill - m.bound} "
                      f"| {statistics.median([r.seconds for r in runs]):.3f} "
                      f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
                      f"{max(ratios):.3f}) |", flush=True)


if __name__ == "__main__":
    main()
