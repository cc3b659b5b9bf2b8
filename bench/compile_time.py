"""What compiling costs: a large program, its passes, and a call of a compiled one.

    python bench/compile_time.py [--repeat 5]

Goals on two cores: a program of 1,000 operations traces and compiles in under 0.5 s; its
`prompt` passes take under 50 ms, under 200 ms with the IR verified after each; a call of a
compiled program costs under 100 us per instance before the model.  Best of `--repeat`.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import sglc as sgl
from sglc.config import RunOptions
from sglc.lang.lowering import arguments
from sglc.runtime import calls
from sglc.runtime.executor import Instance
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.templates import for_tokenizer

PROMPT_PASSES = ("functionalize", "lower-roles", "hoist-prefixes", "fold", "eliminate-dead",
                 "parallelize-forks")


def thousand_ops() -> Any:
    """A fresh program of 1,000 operations as traced: appends, gens, their variables, forks."""
    @sgl.program
    def program(s: Any) -> None:
        s += "Answer the questions.\n"
        for i in range(112):
            s += f"Q{i}: what is {i} + {i}?\nA:"
            s += sgl.gen(f"a{i}", max_tokens=4, stop="\n")
            s += "\n"
            forks = s.fork(2)
            forks += lambda j: f"check {j}:"
            forks.join()

    return program


@sgl.program
def one_gen(s: Any, question: Any) -> None:
    s += "You answer questions in one word.\n"
    s += "Q: " + question + "\n"
    s += "A:" + sgl.gen("answer", stop="\n", max_tokens=1)


class Nowhere:
    """A backend whose model never answers."""

    calls = calls

    def __init__(self) -> None:
        self.tokenizer = ByteTokenizer()
        self.template = for_tokenizer(self.tokenizer)
        self.requests = 0

    def submit(self, requests: Sequence[Any]) -> None:
        self.requests += len(requests)

    def cancel(self, requests: Sequence[Any]) -> None:
        pass


def best(repeat: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(repeat))


def compiling() -> tuple[int, float, float, float]:
    """Operations; seconds to trace and compile, of the prompt passes, and of them verified."""
    program = thousand_ops()
    start = time.perf_counter()
    compiled = program.compile()
    seconds = time.perf_counter() - start
    records = [r for r in compiled.records if r.name in PROMPT_PASSES]
    passes = sum(r.seconds for r in records)
    return (sum(1 for _ in compiled.stages["traced"].walk()), seconds, passes,
            passes + sum(r.verify_seconds for r in records))


def calling(rows: int) -> float:
    """Seconds for each instance: finding the variant, preparing the run, asking the model."""
    backend = Nowhere()
    cache, options = one_gen.compiler(), RunOptions()
    batch = [{"question": f"What is {i} + {i}?"} for i in range(rows)]
    variant = cache.variant(batch[0])
    checked: set[Any] = set()
    cache.job(variant, batch[0], backend, options, 0, rows, None, lambda run: None)
    start = time.perf_counter()
    variants = [cache.variant(values, checked) for values in batch]
    job = cache.job(variants[0], batch[0], backend, options, 0, rows, None, lambda run: None)
    job.start_all([Instance(job, i, arguments(values)) for i, values in enumerate(batch)])
    seconds = time.perf_counter() - start
    assert backend.requests == rows and all(v is variant for v in variants)
    return seconds / rows


def measure(repeat: int) -> dict[str, float]:
    """The figures by name, in seconds (ops: a number)."""
    compiling(), calling(100)  # imports, first calls
    runs = [compiling() for _ in range(repeat)]
    return {"ops": runs[0][0], "compile": min(r[1] for r in runs),
            "passes": min(r[2] for r in runs), "verified": min(r[3] for r in runs),
            "call": best(repeat, lambda: calling(1000))}


GOALS = {"compile": 0.5, "passes": 0.05, "verified": 0.2, "call": 100e-6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    found = measure(parser.parse_args().repeat)
    print(f"operations as traced: {found['ops']:.0f}; threads: {threading.active_count()}")
    for name, goal in GOALS.items():
        print(f"{name:<9} {found[name] * 1e3:9.3f} ms   {found[name] / goal:6.2f} of the goal "
              f"({goal * 1e3:g} ms)")


if __name__ == "__main__":
    main()
