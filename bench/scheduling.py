"""Prefill and host work of every scheduling policy, simulated at full size on the hash model.

Debate (3 agents, 2 rounds, 200 shuffled rows over 34 contexts), tree of thought (32 questions,
branch 3, depth 3), both with fixed lengths, and 400 open-ended answers (50 to 500 tokens, of 4096
allowed), as graphs of engine requests, at some share of the working set.  Printed for each
policy: prefill tokens over the least possible (distinct prefixes of the final sequences, but for
what was decoded), steps, retractions, the peak of KV in use, and host work: the scheduler's own
processor time a step, against the goal of 1 ms + 3 us a row.

Planned runs name ranks and pins in their requests, as a plan does; the other policies ignore
them.  Their programs run on 96 threads (SGLang's `run_batch` default on a few cores), planned ones
all at once.  With `--model` a real model answers: then `s` is wall time (`--turns` times in turns,
the median), and open-ended answers end where their text has some number of characters.

    python -m bench.scheduling [--share 0.25] [--policies planned lpm] [--without pins] [--profile]
    python -m bench.scheduling --workloads open-ended --model default --scale 0.15 --share 0.25
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

import sglc
from sglc.progress import Progress
from sglc.runtime.engine import EngineCore
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.pins import Pin
from sglc.runtime.policies import POLICIES
from sglc.runtime.request import Request, Result, SamplingParams
from sglc.tokens.bytes import ByteTokenizer

Gen = tuple[array, SamplingParams]
Program = Iterator[list[Gen]]  # yields gens that run side by side, is sent what they gave


@dataclass
class Workload:
    """rows: a program each.  ranks: where the plan puts each row.  stages: how often a row
    generates.  tokens, peak: KV that a row has to keep from one stage for the next, and that it
    has at once, beside what rows share.  shared: (prefix length, rows of it) of each row."""

    rows: list[Callable[[], Program]]
    ranks: list[int]
    stages: int
    tokens: int
    peak: int
    shared: list[tuple[int, int]]
    working_set: int = 0  # about; only where lengths are open


def ids(rng: np.random.Generator, n: int) -> array:
    return array("q", rng.integers(97, 123, n).tolist())


def fixed(tokens: int) -> SamplingParams:
    """A generation of this length."""
    return SamplingParams(max_tokens=tokens, ignore_eos=True)


def debate(scale: float, seed: int = 0) -> Workload:
    """Agents answer a question on a context, then again knowing what the others said."""
    rng = np.random.default_rng(seed)
    n = max(6, int(200 * scale))
    contexts = [ids(rng, 600) for _ in range((n + 5) // 6)]
    personas = [ids(rng, 24) for _ in range(3)]
    instruct = ids(rng, 20)
    order = rng.permutation(n)
    rows: list[Any] = []
    ranks = [0] * n
    for at, number in enumerate(order.tolist()):
        ranks[at] = number  # by context
        question = ids(rng, 60)

        def program(prefix: array = contexts[number // 6] + question) -> Program:
            prompts = [prefix + p for p in personas]
            answers = yield [(p, fixed(80)) for p in prompts]
            yield [(p + answers[i] + instruct + answers[i - 1] + answers[i - 2], fixed(80))
                   for i, p in enumerate(prompts)]

        rows.append(program)
    return Workload(rows, ranks, 2, 60 + 3 * (24 + 80), 60 + 3 * (24 + 80 + 20 + 160 + 80),
                    [(600, min(6, n - number // 6 * 6)) for number in order.tolist()])


def tree_of_thought(scale: float, seed: int = 1) -> Workload:
    """Three thoughts on each question, three on each of these, and so on, three deep."""
    rng = np.random.default_rng(seed)
    n = max(2, int(32 * scale))
    head = ids(rng, 300)
    step = [ids(rng, 40) for _ in range(3)]
    rows: list[Any] = []
    for _ in range(n):
        question = ids(rng, 200)

        def program(prompt: array = head + question) -> Program:
            front = [prompt]
            for depth in range(3):
                # Branches differ in what they are asked, as well as in their keys.
                asked = [p + step[depth] + step[b][:4] for p in front for b in range(3)]
                thoughts = yield [(p, fixed(64)) for p in asked]
                front = [p + t for p, t in zip(asked, thoughts, strict=True)]

        rows.append(program)
    return Workload(rows, list(range(n)), 3, 200 + 12 * (44 + 64), 200 + 39 * (44 + 64),
                    [(300, n)] * n)


def by_eos(tokens: int) -> SamplingParams:
    """An end that nobody knows of, soon after so many tokens: the hash model's EOS is frequent."""
    return SamplingParams(max_tokens=4096, min_tokens=tokens)


def by_text(tokens: int) -> SamplingParams:
    """The same for a model that seldom ends by itself: at three characters a token."""
    return SamplingParams(max_tokens=4096, temperature=0, no_stop_trim=True,
                          stop_regex=(f"(?s:.{{{3 * tokens}}})",))


def open_ended(scale: float, seed: int = 2,
               ending: Callable[[int], SamplingParams] = by_eos) -> Workload:
    """Answers of 50 to 500 tokens, where up to 4096 are allowed, to unrelated questions."""
    rng = np.random.default_rng(seed)
    n = max(8, int(400 * scale))
    rows: list[Any] = []
    for shortest in rng.integers(50, 490, n).tolist():
        question = ids(rng, 200)

        def program(prompt: array = question, shortest: int = shortest) -> Program:
            yield [(prompt, ending(shortest))]

        rows.append(program)
    return Workload(rows, list(range(n)), 1, 0, 0, [(0, n)] * n, n * (200 + 270))


WORKLOADS = {"debate": debate, "tree of thought": tree_of_thought, "open-ended": open_ended}


@dataclass
class Run:
    """One workload on one engine."""

    core: EngineCore
    load: Workload
    threads: int
    without: Sequence[str] = ()
    finals: list[tuple[array, int]] = field(default_factory=list)  # ids, and prompt length
    left: int = 0
    seconds: float = 0.0
    stats: Any = None
    host: Any = None

    def go(self) -> float:
        """Run all rows; seconds."""
        self.over = threading.Event()
        self.todo = iter(range(len(self.load.rows)))
        self.left = len(self.load.rows)
        self.prefixes: dict[bytes, tuple[Pin, list[int]]] = {}  # and how many rows are left
        started = time.perf_counter()
        first: list[Request] = []
        for _ in range(min(self.threads, self.left)):
            first += self.start()
        self.core.submit(first)
        assert self.over.wait(3600)
        return time.perf_counter() - started

    def start(self) -> list[Request]:
        row = next(self.todo, None)
        if row is None:
            return []
        promises = "promises" not in self.without
        pin = self.core.pin((self.load.ranks[row],), tokens=promises * self.load.tokens,
                            peak=promises * self.load.peak)
        program = self.load.rows[row]()
        return self.requests(row, pin, program, next(program), 1)

    def requests(self, row: int, pin: Pin, program: Program, gens: list[Gen],
                 number: int) -> list[Request]:
        length, rows = self.load.shared[row]
        prefix = gens[0][0][:length].tobytes()
        if prefix not in self.prefixes:
            self.prefixes[prefix] = self.core.pin((self.load.ranks[row],)), [rows]
        shared = self.prefixes[prefix][0]
        results: list[Any] = [None] * len(gens)
        pins: tuple[tuple[Pin, int | None], ...] = ((shared, length),) if length else ()
        if number < self.load.stages:  # what the last stage leaves is not read again
            pins = ((pin, None), *pins)
        if "pins" in self.without:
            pins = ()
        rank = () if "ranks" in self.without else (self.load.ranks[row], -number)
        out = []
        for i, (prompt, sampling) in enumerate(gens):
            def done(result: Result, i: int = i, prompt: array = prompt) -> None:
                assert result.error is None, result.error
                results[i] = array("q", result.ids)
                self.finals.append((prompt + results[i][:-1], len(prompt)))
                if all(r is not None for r in results):
                    self.went_on(row, pin, prefix, program, results, number + 1)

            out.append(Request("generate", prompt, done, sampling,
                               key=row * 1000 + number * 50 + i,
                               priority=rank, pins=pins))
        return out

    def went_on(self, row: int, pin: Pin, prefix: bytes, program: Program, results: list[array],
                number: int) -> None:
        try:
            gens = program.send(results)
        except StopIteration:
            self.core.unpin(pin)
            shared, rows = self.prefixes[prefix]
            rows[0] -= 1
            if not rows[0]:
                self.core.unpin(shared)
            self.left -= 1
            if not self.left:
                self.over.set()
            self.core.submit(self.start())
            return
        self.core.submit(self.requests(row, pin, program, gens, number))


def least(finals: list[tuple[array, int]]) -> tuple[int, int]:
    """Prefill tokens that cannot be avoided, and the working set: distinct prefixes of all
    sequences, without and with those that were decoded."""
    known: dict[tuple[int, int], int] = {}
    decoded: set[int] = set()
    for sequence, prompt in finals:
        node = 0
        for at, token in enumerate(sequence):
            node = known.setdefault((node, token), len(known) + 1)
            if at >= prompt:
                decoded.add(node)
    return len(known) - len(decoded), len(known)


class Host:
    """Processor seconds in the scheduler, and rows, of an engine's steps."""

    def __init__(self, core: EngineCore, profile: bool) -> None:
        self.seconds = 0.0
        self.steps = self.rows = 0
        self.profile = cProfile.Profile()
        scheduler = core._loop.scheduler
        prepare, complete = scheduler.prepare, scheduler.complete
        if profile:
            prepare = partial(self.profile.runcall, prepare)
            complete = partial(self.profile.runcall, complete)
        now = 0.0

        def timed_prepare() -> Any:
            nonlocal now
            start = time.thread_time()
            step = prepare()
            now = time.thread_time() - start
            return step

        def timed_complete(step: Any, *rest: Any) -> None:
            start = time.thread_time()
            complete(step, *rest)
            self.seconds += now + time.thread_time() - start
            self.steps += 1
            self.rows += len(step.rows)

        scheduler.prepare, scheduler.complete = timed_prepare, timed_complete


def simulate(name: str, policy: str, room: int, *, scale: float = 1.0, threads: int = 96,
             budget: int = 2048, without: Sequence[str] = (), profile: bool = False) -> Run:
    """Run a workload in a pool of `room` tokens."""
    tokenizer = ByteTokenizer()
    load = WORKLOADS[name](scale)
    core = EngineCore(HashRunner(tokenizer.vocab_size, tokenizer), tokenizer, kv_tokens=room,
                      max_batch_tokens=budget, policy=policy)
    with core:
        run = Run(core, load, len(load.rows) if policy == "planned" else threads, without)
        run.host = Host(core, profile)
        run.seconds = run.go()
        core.wait_idle()
        core.check()
        run.stats = core.stats()
    return run


def on_model(args: argparse.Namespace, name: str, load: Workload) -> None:
    """Wall times of a workload under each policy on a real model, in turns."""
    options = json.loads(args.options)
    work = load.working_set or least(
        simulate(name, "planned", 1 << 20, scale=args.scale).finals)[1]
    for share in args.share:
        taken: dict[str, list[float]] = {policy: [] for policy in args.policies}
        last: dict[str, Run] = {}
        room = int(share * work)
        with sglc.Engine(None if args.model == "default" else args.model, kv_tokens=room,
                         **options) as engine:
            core = engine.core
            core.wait_idle()
            Run(core, replace(load, rows=load.rows[:4]), 4).go()  # warm
            bar = Progress(args.turns * len(args.policies), unit="run", leave=False)
            for turn in range(args.turns):
                for policy in args.policies if turn % 2 == 0 else args.policies[::-1]:
                    core.wait_idle()
                    core.use_policy(policy)
                    core.flush_cache()
                    core.reset_peak()
                    before = core.stats()
                    threads = len(load.rows) if policy == "planned" else args.threads
                    run = last[policy] = Run(core, load, threads, args.without)
                    taken[policy].append(run.go())
                    core.wait_idle()
                    run.stats = spent(before, core.stats())
                    bar.step()
            bar.close()
        best = min(statistics.median(t) for p, t in taken.items() if p != "planned")
        for policy, seconds in taken.items():
            run, median = last[policy], statistics.median(seconds)
            made = sum(len(sequence) - prompt + 1 for sequence, prompt in run.finals)
            minimum, _ = least(run.finals)
            print(f"| {name} | {share} | {policy} | {run.stats['prefill_tokens'] / minimum:.3f} "
                  f"| {run.stats['forward_passes']} | {run.stats['retractions']} "
                  f"| {run.stats['kv_peak']}/{room} | {made / median:.0f} tokens/s "
                  f"| best baseline / this {best / median:.2f} "
                  f"| {median:.1f} ({', '.join(f'{t:.1f}' for t in seconds)}) |", flush=True)


def spent(before: Any, after: Any) -> dict[str, int]:
    """Counters of one run, and the peak."""
    return {**{f: getattr(after, f) - getattr(before, f) for f in (
        "prefill_tokens", "forward_passes", "retractions")}, "kv_peak": after.kv_peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, nargs="*", default=[0.25, 0.5, 2.0])
    parser.add_argument("--policies", nargs="*", default=list(POLICIES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=96)
    parser.add_argument("--budget", type=int, default=2048, help="new tokens a step")
    parser.add_argument("--workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--without", choices=["pins", "promises", "ranks"], nargs="*", default=[],
                        help="what planned requests leave out")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--model", help="default, or a GGUF file or Hugging Face folder")
    parser.add_argument("--options", default="{}", help="JSON, for the model's engine")
    parser.add_argument("--turns", type=int, default=3, help="on a real model")
    args = parser.parse_args()
    print("| workload | share | policy | prefill / least | steps | retracted | KV peak / pool "
          "| host ms/step | goal | s |\n|" + "---|" * 10)
    bar = Progress(0 if args.model else len(args.workloads) * len(args.share) * len(args.policies),
                   False if args.model else None, unit="run", leave=False)
    for name in args.workloads:
        if args.model:
            ending = {"ending": by_text} if name == "open-ended" else {}
            on_model(args, name, WORKLOADS[name](args.scale, **ending))
            continue
        first = simulate(name, "planned", 1 << 20, scale=args.scale, budget=args.budget)
        _, work = least(first.finals)
        for share in args.share:
            for policy in args.policies:
                room = int(share * work)
                it = simulate(name, policy, room, scale=args.scale, threads=args.threads,
                              budget=args.budget, without=args.without, profile=args.profile)
                stats, host = it.stats, it.host
                minimum, _ = least(it.finals)
                goal = 1 + 0.003 * host.rows / host.steps
                bar.step()
                bar.say(f"| {name} | {share} | {policy} | {stats.prefill_tokens / minimum:.3f} "
                      f"| {stats.forward_passes} | {stats.retractions} "
                      f"| {stats.kv_peak}/{stats.kv_total} "
                      f"| {1000 * host.seconds / host.steps:.2f} | {goal:.2f} | {it.seconds:.1f} |")
                if args.profile:
                    pstats.Stats(host.profile).sort_stats("tottime").print_stats(30)
    bar.close()


if __name__ == "__main__":
    main()
