"""The six programs of the peers' table on sglc alone: cold cache each time, medians.

    python -m bench.gpu_programs --model FOLDER [--only tree,judge] [--turns 3] [--steps]

FOLDER has a config.json of the Llama-3.1-8B shape and any tokenizer; weights are random.  Three
forms of each: "compiled" does the work as written (the passes of `--without` left out), "passes"
is compiled with all of them, "eager" has no compiler.  Times include reading the texts.  The
other columns are the figures of SGLang 0.5.16 on one H200, of the least time and of the goal.

`--steps` runs each once more and says where the time went, `--profile` what one thread did: the
calling one in one more run of each, or the engine's in all of them.  `--model hash` (with
`--scale 0.05`) tries it all without a GPU.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sglc
from bench.workloads import JOBS, Job, chosen, make_program, rows_of
from sglc.progress import Progress

FORMS = ("compiled", "passes", "eager")
WITHOUT = "eliminate-dead,merge-duplicates"
HEAD = ("program | form | seconds (all) | SGLang | over ours | least | goal | prefill / bound "
        "| decode, forced | steps | tokens a step | KV peak")


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of all instances from an empty cache.

    seconds: from the call to the last text read.  began: on the clock of `time.perf_counter`.
    bound: the least prefill there could be.  The rest are tokens, but for steps and errors.
    """

    seconds: float
    began: float
    prefill: int
    bound: int
    decode: int
    forced: int
    steps: int
    kv_peak: int
    characters: int
    errors: tuple[str, ...]

    @property
    def tokens_a_step(self) -> float:
        return (self.prefill + self.decode + self.forced) / max(1, self.steps)


def once(engine: Any, program: Any, rows: Sequence[Any], mode: str, threads: int | str = "auto",
         profile: cProfile.Profile | None = None) -> Turn:
    """Run all rows from an empty cache and count what the engine did."""
    engine.flush_cache()
    engine.core.reset_peak()
    before = engine.stats()
    with engine.record() as recording:
        if profile is not None:
            profile.enable()
        began = time.perf_counter()
        states = program.run_batch(rows, backend=engine, mode=mode, seed=0, temperature=0,
                                   num_threads=threads)
        errors = tuple([str(s.error()) for s in states if s.error() is not None])
        characters = 0 if errors else sum([len(s.text()) for s in states])
        seconds = time.perf_counter() - began
        if profile is not None:
            profile.disable()
    after = engine.stats()

    def spent(counter: str) -> int:
        return int(getattr(after, counter) - getattr(before, counter))

    return Turn(seconds, began, spent("prefill_tokens"), recording.lower_bound().prefill,
                spent("decode_tokens"), spent("forced_tokens"), spent("forward_passes"),
                after.kv_peak, characters, errors)


def programs_of(name: str, job: Job, without: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """The program of each form, and the mode to run it in."""
    fewer = sglc.program(make_program(name, job, sglc), without=without)
    whole = sglc.program(make_program(name, job, sglc))
    return {"compiled": (fewer, "compiled"), "passes": (whole, "compiled"),
            "eager": (whole, "eager")}


def line(name: str, form: str, job: Job, turns: Sequence[Turn]) -> str:
    """A row of the table; the counts are the last turn's."""
    median = statistics.median([t.seconds for t in turns])
    every = ", ".join([f"{t.seconds:.3f}" for t in turns])
    sglang, least, goal = job.known
    last = turns[-1]
    return (f"{name} | {form} | {median:.3f} ({every}) | {sglang:g} | {sglang / median:.2f} | "
            f"{least:g} | {goal:g} | {last.prefill} / {last.bound} = "
            f"{last.prefill / max(1, last.bound):.3f} | {last.decode}, {last.forced} | "
            f"{last.steps} | {last.tokens_a_step:.1f} | {last.kv_peak}")


def where(times: Sequence[Any], turn: Turn) -> str:
    """Where the seconds of a turn went: what the host and the device did, in sums."""
    ended = turn.began + turn.seconds
    launching = sum([t.launched - t.started for t in times])
    waiting = sum([t.finished - t.waited for t in times])
    first, last = times[0].started - turn.began, ended - times[-1].finished
    device = sum([t.device for t in times if t.device is not None])
    other = turn.seconds - first - last - launching - waiting
    return (f"    {turn.seconds:.3f} s: {first:.3f} before the first step, {last:.3f} after the "
            f"last; {len(times)} steps: host {launching:.3f} launching, {waiting:.3f} waiting, "
            f"{other:.3f} else; device {device:.3f} busy, "
            f"{turn.seconds - device:.3f} not")


def open_engine(args: argparse.Namespace) -> Any:
    """The engine to measure; the hash model has a byte tokenizer and no shape."""
    options = json.loads(args.options)
    if args.model == "hash":
        from sglc.backends.hash_model import HashModel

        return HashModel(**{"kv_tokens": 1 << 20, **options})
    if args.device != "cpu":
        options = {"load_format": "dummy", **options}
    return sglc.Engine(args.model, device=args.device, **options)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder; or hash")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default=",".join(JOBS))
    parser.add_argument("--mode", default=",".join(FORMS), help="which forms")
    parser.add_argument("--without", default=WITHOUT, help="passes that `compiled` leaves out")
    parser.add_argument("--policy", default="planned", help="one or more scheduling policies")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of instances and lengths")
    parser.add_argument("--threads", type=int, default=0, help="of eager runs; 0: as by default")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--trace", help="a Chrome trace of the last program's steps, with --steps")
    parser.add_argument("--profile", choices=("calling", "engine"), help="of this thread")
    parser.add_argument("--json", help="append a line a row to this file")
    parser.add_argument("--options", default="{}", help="JSON, for the engine")
    args = parser.parse_args(words)
    try:
        args.only, args.mode = chosen(args.only, tuple(JOBS)), chosen(args.mode, FORMS)
    except ValueError as e:
        parser.error(str(e))
    args.policy = [p for p in args.policy.split(",") if p]
    args.without = tuple(p for p in args.without.split(",") if p)
    if args.turns < 1:
        parser.error("--turns is at least 1")
    return args


def run(engine: Any, args: argparse.Namespace, calling: cProfile.Profile | None) -> bool:
    """Run and print everything; whether a row failed.  calling: gets one more run of each."""
    failed = False
    threads: int | str = args.threads or "auto"
    launcher = engine.core._loop._launcher
    print(HEAD, flush=True)
    for name in args.only:
        job = JOBS[name].scaled(args.scale) if args.scale != 1 else JOBS[name]
        rows = rows_of(name, job)
        programs = programs_of(name, job, args.without)
        for policy in args.policy:
            engine.core.wait_idle()
            engine.use_policy(policy)
            for form in args.mode:
                program, mode = programs[form]
                label = form if policy == "planned" else f"{form}, {policy}"
                with Progress(args.turns + 1, unit="run", what=name, leave=False) as bar:
                    warm = once(engine, program, rows, mode, threads)
                    bar.step()
                    turns = []
                    for _ in range(args.turns):
                        turns.append(once(engine, program, rows, mode, threads))
                        bar.step()
                last = turns[-1]
                print(f"{line(name, label, job, turns)}   [warm-up {warm.seconds:.1f} s, "
                      f"{last.characters} characters]", flush=True)
                if last.errors:
                    failed = True
                    print(f"    {len(last.errors)} failed: {last.errors[0][:300]}", flush=True)
                if args.json:
                    write(args.json, name, label, turns, warm)
                if args.steps and hasattr(launcher, "timeline"):
                    steps(launcher, engine, program, rows, mode, threads, args.trace)
                if calling is not None:
                    once(engine, program, rows, mode, threads, calling)
    return failed


def steps(launcher: Any, engine: Any, program: Any, rows: Sequence[Any], mode: str,
          threads: int | str, trace: str | None) -> None:
    """One more turn, with the time of each step."""
    from bench.step_timeline import chrome, report_steps

    launcher.timeline = []
    turn = once(engine, program, rows, mode, threads)
    times, launcher.timeline = launcher.timeline, None
    print(where(times, turn))
    report_steps(times)
    if trace:
        chrome(times, trace)


def write(path: str, name: str, form: str, turns: Sequence[Turn], warm: Turn) -> None:
    last = turns[-1]
    row = {"program": name, "form": form, "seconds": [t.seconds for t in turns],
           "warm_up": warm.seconds, "prefill": last.prefill, "bound": last.bound,
           "decode": last.decode, "forced": last.forced, "steps": last.steps,
           "tokens_a_step": last.tokens_a_step, "kv_peak": last.kv_peak,
           "errors": len(last.errors)}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    args = arguments(words)
    began = time.perf_counter()
    engine = open_engine(args)
    print(f"{about(engine)}; opened in {time.perf_counter() - began:.1f} s, "
          f"{engine.stats().kv_total} KV slots", flush=True)
    profile = cProfile.Profile()
    if args.profile == "engine":
        turns = engine.core._loop._turns
        engine.core._loop._turns = lambda: profile.runcall(turns)
    try:
        failed = run(engine, args, profile if args.profile == "calling" else None)
    finally:
        engine.close()
    if args.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    return 1 if failed else 0


def about(engine: Any) -> str:
    """What it runs on."""
    import torch

    device = getattr(engine, "device", "the hash model")
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return f"{name}, torch {torch.__version__}"


if __name__ == "__main__":
    raise SystemExit(main())
