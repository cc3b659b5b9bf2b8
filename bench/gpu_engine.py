"""The six workloads of the peers' table on sglc alone: cold cache each, medians.

    python -m bench.gpu_engine --model FOLDER [--only bs1,offline] [--turns 3] [--steps]

FOLDER has a config.json of the Llama-3.1-8B shape and any tokenizer; weights are random.  Prompts
are ids, greedy, EOS ignored but for `regexjson`.  The other columns are the figures of vLLM 0.23.0
and SGLang 0.5.16 on one H200, of the roofline, and of the goal.  `--steps` adds host and device
time a step, `--trace FILE` a Chrome trace of the last turn.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import sglc
from bench.step_timeline import chrome, report_steps
from bench.workloads import BATCHES, Batch
from sglc.progress import Progress


def once(engine: Any, work: Batch, prompts: list[list[int]], new: int) -> tuple[float, Any]:
    engine.flush_cache()
    sampling: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": new,
                                "ignore_eos": work.regex is None}
    if work.regex:
        sampling["regex"] = work.regex
    began = time.perf_counter()
    out = engine.generate(input_ids=prompts, sampling=sampling)
    return time.perf_counter() - began, out


def kernels(run: Callable[[], object], at: float, length: float = 0.4) -> None:
    """Device time by kernel in a window of a run, which begins after `at` seconds."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]):  # the first time takes long
        torch.zeros(8, device="cuda").cpu()
    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(at)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        time.sleep(length)
    thread.join()
    rows = sorted(found.key_averages(), key=lambda e: -e.device_time_total)
    total = sum(e.device_time_total for e in rows)
    print(f"    kernels from {at} s on, {total / 1e3:.1f} ms in all:")
    for e in rows[:16]:
        print(f"    {e.device_time_total / total:6.1%} {e.device_time_total / 1e3:8.2f} ms "
              f"{e.count:6} x {e.device_time_total / e.count:8.1f} us  {e.key[:90]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--only", default=",".join(BATCHES))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--trace")
    parser.add_argument("--kernels", default="", help="seconds at which to look at kernels")
    parser.add_argument("--profile", action="store_true", help="of the engine's thread")
    parser.add_argument("--scale", type=int, default=1, help="divide prompts and tokens by this")
    parser.add_argument("--tp", type=int, default=1, help="GPUs to spread the model over")
    parser.add_argument("--options", default="{}", help="JSON, for the engine")
    parser.add_argument("--patience", type=float,
                        help="the part of rows that may be in vain in a step prepared ahead")
    parser.add_argument("--pause", type=float, default=0.0,
                        help="seconds to wait after the warm-up (tables are made meanwhile)")
    parser.add_argument("--regex", help="of regexjson, instead of its own")
    args = parser.parse_args()
    began = time.perf_counter()
    engine = sglc.Engine(args.model, device="cuda", load_format="dummy", tp=args.tp,
                         **json.loads(args.options))
    if args.patience is not None:
        engine.core._loop.scheduler.patience = args.patience
    profile = cProfile.Profile()
    if args.profile:
        turns = engine.core._loop._turns
        engine.core._loop._turns = lambda: profile.runcall(turns)
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}; opened in {time.perf_counter() - began:.1f} s, "
          f"{engine.stats().kv_total} KV slots", flush=True)
    print("workload | seconds (all) | vLLM | SGLang | roofline | goal | passes | tokens a pass",
          flush=True)
    rng = random.Random(0)
    for name, work in BATCHES.items():
        prompts = work.prompts(rng)
        if name not in args.only.split(","):
            continue
        if work.regex is not None and args.regex is not None:
            work = replace(work, regex=args.regex)
        prompts = prompts[:max(1, len(prompts) // args.scale)]
        new = max(2, work.new // args.scale)
        launcher = engine.core._loop._launcher
        taken = []
        bar = Progress(args.turns + 1, unit="run", what=name, leave=False)
        began = time.perf_counter()
        once(engine, work, prompts, min(new, 8) if work.regex is None else new)
        first = time.perf_counter() - began
        bar.step()
        time.sleep(args.pause)
        for _ in range(args.turns):
            before = engine.stats()
            if args.steps:
                launcher.timeline = []
            seconds, out = once(engine, work, prompts, new)
            ended = time.perf_counter()
            taken.append(seconds)
            bar.step()
        bar.close()
        if taken:
            after = engine.stats()
            passes = after.forward_passes - before.forward_passes
            made = sum(len(o.ids) for o in out)
            computed = sum(getattr(after, f) - getattr(before, f) for f in (
                "prefill_tokens", "decode_tokens", "forced_tokens"))
            median = statistics.median(taken)
            cells = " | ".join(f"{x:g}" for x in work.known)
            print(f"{name} | {median:.3f} ({', '.join(f'{t:.3f}' for t in taken)}) | {cells} | "
                  f"{passes} | {computed / passes:.1f}   "
                  f"[warm-up {first:.1f} s, {made} tokens out]", flush=True)
            if work.regex:
                print("    " + repr(out[0].text[:160]), flush=True)
        if args.steps and taken:
            report_steps(launcher.timeline, ended - seconds, ended)
            if args.trace:
                chrome(launcher.timeline, args.trace)
            launcher.timeline = None
        for at in filter(None, args.kernels.split(",")):
            kernels(lambda w=work, p=prompts, n=new: once(engine, w, p, n), float(at))
    if args.steps:
        graphs = engine.core.runner._graphs
        print(f"{len(graphs) if graphs is not None else 0} graphs, "
              f"{torch.cuda.max_memory_allocated() >> 20} MiB at most", flush=True)
    engine.close()
    if args.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
