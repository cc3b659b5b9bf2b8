"""Measuring what the steps of an engine cost, for the cost model's estimates of time.

A few requests of random ids: some alone, some many at once, some on a long prompt, some that fill
a step.  What is cached is flushed before each.  Each runs twice, and the second time counts: a
step of a new size may compile kernels and capture graphs first.
"""

from __future__ import annotations

import random
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from sglc.plan.step_costs import StepCost
from sglc.progress import Progress
from sglc.runtime.request import Request, Result, SamplingParams

if TYPE_CHECKING:
    from sglc.runtime.engine import EngineCore

_CASES = ((1, 16, 6), (8, 16, 6), (32, 16, 4), (1, 400, 6), (2, 200, 1))
"""Requests, tokens of each prompt, tokens generated; a prompt that fills a step is added."""
_SILENT_SECONDS = 2.0


def calibrate(core: EngineCore) -> StepCost:
    """The cost of a step, from runs of known sizes; takes two seconds or so on the CPU.

    Waits until the engine is idle, and empties its cache.
    """
    core.wait_idle()
    draw = random.Random(0)
    room = min(core.kv_tokens - 1, core.runner.context_length - 8)
    samples, seconds = [], []
    cases = (*_CASES, (1, core.max_batch_tokens, 1))
    bar = Progress(2 * len(cases), unit="run", what="calibrating", delay=_SILENT_SECONDS,
                   leave=False)
    for requests, prompt, new in cases:
        prompt = min(prompt, room // 2)
        requests = max(1, min(requests, room // (prompt + new)))
        for _ in range(2):
            prompts = [[draw.randrange(_low(core), _high(core)) for _ in range(prompt)]
                       for _ in range(requests)]
            core.flush_cache()
            before = core.stats()
            start = time.perf_counter()
            _run(core, prompts, new)
            taken = time.perf_counter() - start
            after = core.stats()
            bar.step()
        computed = (after.prefill_tokens - before.prefill_tokens
                    + after.decode_tokens - before.decode_tokens)
        steps = after.forward_passes - before.forward_passes
        reads = requests * (prompt + new / 2) * steps
        samples.append((steps, computed, reads))
        seconds.append(taken)
    bar.close()
    core.flush_cache()
    return fitted(samples, seconds)


def fitted(samples: list[tuple[int, int, float]], seconds: list[float]) -> StepCost:
    """Costs of steps, tokens and context, none negative, with the least relative error.

    samples: steps, tokens, and KV tokens read, of each run; seconds: what it took.
    """
    a = np.array(samples, dtype=float)
    y = np.array(seconds)
    a, y = a / y[:, None], np.ones(len(y))
    kept = [0, 1, 2]
    while True:
        found, *_ = np.linalg.lstsq(a[:, kept], y, rcond=None)
        if (found >= 0).all() or len(kept) == 1:
            break
        kept.pop(int(np.argmin(found * np.abs(a[:, kept]).mean(axis=0))))
    costs = [0.0, 0.0, 0.0]
    for i, cost in zip(kept, found, strict=True):
        costs[i] = max(0.0, float(cost))
    return StepCost(*costs)


def _low(core: EngineCore) -> int:
    return min(32, core.runner.vocab_size // 4)


def _high(core: EngineCore) -> int:
    return max(_low(core) + 1, core.runner.vocab_size // 2)


def _run(core: EngineCore, prompts: list[list[int]], new: int) -> None:
    ended = threading.Semaphore(0)
    errors: list[Any] = []

    def done(result: Result) -> None:
        if result.error is not None:
            errors.append(result.error)
        ended.release()

    sampling = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True)
    core.submit([Request("generate", array("q", ids), done, sampling) for ids in prompts])
    for _ in prompts:
        ended.acquire()
    if errors:
        raise errors[0]
