"""Where the time of an engine's steps goes, on the host and on the device.

    python -m bench.step_timeline --model FOLDER [--only decode256] [--trace FILE]

Runs workloads of `bench.gpu_engine` once each, prints medians a kind of step, and writes the last
one's steps as a Chrome trace.  Host and device overlap, so times do not add up.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from itertools import pairwise

from sglc.runtime.cuda.launcher import StepTime


def report_steps(times: list[StepTime], began: float | None = None,
                 ended: float | None = None) -> None:
    """Medians a kind of step: milliseconds on the host, waited, on the device; and means of what
    constraints cost the host, where there are any.

    began, ended: of the whole run, to tell what was before the first step and after the last.
    """
    if began is not None and ended is not None:
        print(f"    {1e3 * (times[0].started - began):.1f} ms before the first step, "
              f"{1e3 * (ended - times[-1].finished):.1f} after the last")
    kinds: dict[str, list[tuple[StepTime, StepTime]]] = {}
    for before, step in pairwise(times):
        kind = "decode" if step.tokens == step.rows else "large" if step.tokens > 1024 else "mixed"
        kinds.setdefault(kind, []).append((before, step))
    for kind, pairs in kinds.items():
        def middle(values: list[float]) -> float:
            return 1e3 * statistics.median(values)

        whole = middle([b.finished - a.finished for a, b in pairs])
        launch = middle([b.launched - b.started for _, b in pairs])
        wait = middle([b.finished - b.waited for _, b in pairs])
        device = middle([b.device for _, b in pairs if b.device is not None] or [0.0])
        mean = statistics.mean([b.tokens for _, b in pairs])
        print(f"    {len(pairs):4} {kind:6} steps, {mean:6.0f} tokens: {whole:7.3f} ms a step, "
              f"device {device:7.3f}, waiting {wait:7.3f}, launching {launch:6.3f}, "
              f"other host work {whole - wait - launch:6.3f}", flush=True)
    if any(step.ruling for step in times):
        for name, some in (("with", [t for t in times if t.jumps]),
                           ("without", [t for t in times if not t.jumps])):
            late = [1e3 * t.ruling for t in some if not t.ahead]
            ahead = [1e3 * t.ruling for t in some if t.ahead]
            print(f"    constraints, {len(some):4} steps {name} jumps: waited for "
                  f"{statistics.mean(late or [0]):.3f} ms a step ({len(late)} steps), beside the "
                  f"device {statistics.mean(ahead or [0]):.3f} ({len(ahead)}); at most "
                  f"{max([*late, *ahead, 0]):.3f}", flush=True)


def chrome(times: list[StepTime], path: str) -> None:
    """A trace to open in a browser's trace viewer."""
    events = []
    for step in times:
        for name, begin, end in (("launch", step.started, step.launched),
                                 ("wait", step.waited, step.finished)):
            events.append({"name": name, "ph": "X", "pid": 0, "tid": 0, "ts": begin * 1e6,
                           "dur": (end - begin) * 1e6,
                           "args": {"tokens": step.tokens, "rows": step.rows}})
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"traceEvents": events}, file)


def main() -> None:
    import sglc
    from bench.gpu_engine import once
    from bench.workloads import BATCHES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--only", default="bs1,decode256")
    parser.add_argument("--trace")
    args = parser.parse_args()
    rng = random.Random(0)
    with sglc.Engine(args.model, device="cuda", load_format="dummy") as engine:
        launcher = engine.core._loop._launcher
        for name in args.only.split(","):
            work = BATCHES[name]
            prompts = work.prompts(rng)
            once(engine, work, prompts, work.new)
            launcher.timeline = []
            seconds, _ = once(engine, work, prompts, work.new)
            print(f"{name}: {seconds:.3f} s")
            report_steps(launcher.timeline)
            if args.trace:
                chrome(launcher.timeline, args.trace)


if __name__ == "__main__":
    main()
