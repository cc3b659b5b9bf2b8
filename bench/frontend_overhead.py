"""Programs per second through the whole stack, without the model's own time.

One-gen programs on the hash model: what is left is the front end, the plan executor, the
scheduler, the cache and the sampler.  SGLang's front end manages about 800 such programs a second
against a trivial server (research, measured 2026-11); the goal is 10,000.

    python bench/frontend_overhead.py [--rows 4000] [--tokens 1] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from typing import Any

import sglc as sgl


@sgl.program
def one_gen(s: Any, question: Any) -> None:
    s += "You answer questions in one word.\n"
    s += "Q: " + question + "\n"
    s += "A:" + sgl.gen("answer", stop="\n")


def measure(rows: int, tokens: int, mode: str) -> dict[str, float]:
    """Seconds in all and in the model, and what is left, for one batch."""
    batch = [{"question": f"What is {i} + {i}?"} for i in range(rows)]
    with sgl.HashModel(kv_tokens=1 << 18, max_batch_tokens=8192) as model:
        one_gen.run_batch(batch[:64], backend=model, mode=mode, seed=0, temperature=0)  # warm
        before = model.stats()
        start = time.perf_counter()
        states = one_gen.run_batch(batch, backend=model, mode=mode, seed=0, temperature=0,
                                   max_new_tokens=tokens)
        for state in states:
            state["answer"]
        seconds = time.perf_counter() - start
        model_seconds = model.stats().model_seconds - before.model_seconds
    rest = seconds - model_seconds
    return {"seconds": seconds, "model": model_seconds, "rest": rest, "per_s": rows / rest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=1, help="max_new_tokens")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for mode, rows in (("compiled", options.rows), ("eager", min(options.rows, 1000))):
        profile = cProfile.Profile() if options.profile else None
        if profile is not None:
            profile.enable()
        r = measure(rows, options.tokens, mode)
        if profile is not None:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        print(f"{mode:<9} {rows} programs x {options.tokens} tokens: {r['seconds']:.3f} s, "
              f"model {r['model']:.3f} s, rest {r['rest']:.3f} s = {r['per_s']:,.0f} programs/s "
              f"({r['rest'] / rows * 1e6:.0f} us each)")


if __name__ == "__main__":
    main()
