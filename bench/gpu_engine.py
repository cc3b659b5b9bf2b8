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
from dataclasses import dataclass
from typing import Any

import torch

import sglc
from bench.step_timeline import chrome, report_steps

CHARACTER = (
    r'\{\n "name": "[\w\d\s]{1,16}",\n "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n '
    r'"blood status": "(Pure-blood|Half-blood|Muggle-born)",\n "occupation": "(student|teacher|'
    r'auror|ministry of magic|death eater|order of the phoenix)",\n "wand": \{\n "wood": '
    r'"[\w\d\s]{1,16}",\n "core": "[\w\d\s]{1,16}",\n "length": [0-9]{1,2}\.[0-9]{0,2}\n \},\n '
    r'"alive": "(Alive|Deceased)",\n "patronus": "[\w\d\s]{1,16}",\n "bogart": '
    r'"[\w\d\s]{1,16}"\n\}')


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts, new tokens each, a constraint; seconds of vLLM, SGLang, roofline and goal."""

    prompts: Callable[[random.Random], list[list[int]]]
    new: int
    known: tuple[float, float, float, float]
    regex: str | None = None


def ids(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(100, 49000) for _ in range(n)]


def rows(count: int, length: int) -> Callable[[random.Random], list[list[int]]]:
    return lambda rng: [ids(rng, length) for _ in range(count)]


def groups(rng: random.Random) -> list[list[int]]:
    out = []
    for _ in range(32):
        shared = ids(rng, 2048)
        out += [shared + ids(rng, 128) for _ in range(16)]
    rng.shuffle(out)
    return out


def one_prefix(rng: random.Random) -> list[list[int]]:
    shared = ids(rng, 4096)
    return [shared + ids(rng, 32) for _ in range(512)]


WORKLOADS = {
    "bs1": Workload(rows(1, 128), 256, (1.258, 1.235, 0.95, 1.10)),
    "offline": Workload(rows(256, 1024), 128, (8.55, 8.46, 6.9, 7.7)),
    "decode256": Workload(rows(256, 128), 512, (7.16, 7.10, 4.1, 6.0)),
    "sharedprefix": Workload(groups, 64, (6.57, 7.43, 3.6, 4.6)),
    "onebigprefix": Workload(one_prefix, 32, (3.26, 2.79, 0.8, 1.2)),
    "regexjson": Workload(rows(64, 64), 200, (2.85, 3.09, 0.4, 0.6), CHARACTER),
}


def once(engine: Any, work: Workload, prompts: list[list[int]], new: int) -> tuple[float, Any]:
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
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--trace")
    parser.add_argument("--kernels", default="", help="seconds at which to look at kernels")
    parser.add_argument("--profile", action="store_true", help="of the engine's thread")
    parser.add_argument("--scale", type=int, default=1, help="divide prompts and tokens by this")
    parser.add_argument("--options", default="{}", help="JSON, for the engine")
    args = parser.parse_args()
    began = time.perf_counter()
    engine = sglc.Engine(args.model, device="cuda", load_format="dummy",
                         **json.loads(args.options))
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
    for name, work in WORKLOADS.items():
        prompts = work.prompts(rng)
        if name not in args.only.split(","):
            continue
        prompts = prompts[:max(1, len(prompts) // args.scale)]
        new = max(2, work.new // args.scale)
        launcher = engine.core._loop._launcher
        taken = []
        began = time.perf_counter()
        once(engine, work, prompts, min(new, 8) if work.regex is None else new)
        first = time.perf_counter() - began
        for _ in range(args.turns):
            before = engine.stats()
            if args.steps:
                launcher.timeline = []
            seconds, out = once(engine, work, prompts, new)
            ended = time.perf_counter()
            taken.append(seconds)
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
