"""Compiling the README's character regex as the first constraint of a new process.

Each time is one call of `grammar.compile` in a process of its own, in which the tokenizer's index
is ready and nothing was compiled before: without the disk cache, and from it.

    python -m bench.grammar_fresh [--repeat 5] [--tokenizer smollm2]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from sglc import grammar
from sglc.backends.hash_model import open_tokenizer
from sglc.grammar.token_index import TokenIndex


def once(tokenizer_name: str) -> None:
    """Compile, and print the milliseconds it took."""
    from bench.grammar import CHARACTER

    tokenizer = open_tokenizer(tokenizer_name)
    TokenIndex.of(tokenizer)
    compile_ = grammar.compile  # imports the compiler
    start, busy = time.perf_counter(), time.process_time()
    compile_(regex=CHARACTER, tokenizer=tokenizer)
    print(1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - busy))


def in_new_process(tokenizer_name: str, cache: str) -> tuple[float, float]:
    """The milliseconds of `once` in a process with a cache folder ("off": none), and those of
    the processor."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.grammar_fresh", "--once", "--tokenizer", tokenizer_name],
        env=os.environ | {"SGLC_GRAMMAR_CACHE": cache}, check=True, text=True,
        capture_output=True)
    wall, busy = map(float, done.stdout.split())
    return wall, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokenizer", default="smollm2")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.tokenizer)
        return
    with tempfile.TemporaryDirectory() as folder:
        in_new_process(options.tokenizer, folder)
        for title, cache in (("no cache", "off"), ("disk cache", folder)):
            times = [in_new_process(options.tokenizer, cache) for _ in range(options.repeat)]
            for what, column in zip(("wall", "processor"), zip(*times, strict=True), strict=True):
                row = sorted(column)
                print(f"{title:10s}  {what:9s}  best {row[0]:.2f} ms, "
                      f"median {row[len(row) // 2]:.2f} ms, worst {row[-1]:.2f} ms")


if __name__ == "__main__":
    main()
