"""Selects of 4, 57 and 500 choices: one request against a request a choice, on the CPU.

    python bench/selects.py [--model MODEL] [--rounds 5]

Each round scores the same choices behind a new question, as a program does (the trie: one request)
and as separate requests, one after the other; both find the shared instructions in the cache.
The ratio is that of the two in the same round; the machine's speed cancels out.  Then the CPU
time outside the model of a batch of selects on the hash model.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import sglc as sgl
from sglc.progress import Progress
from sglc.runtime.calls import choose
from sglc.runtime.choice_ids import ChoiceIds
from sglc.runtime.request import Request, Result
from sglc.tokens.prompt import Prompt

WORDS = ("time year people way day man thing woman life child world school state family student "
         "group country problem hand part place case week company system program question work "
         "number night").split()
RULES = "Sort the question into one of the subjects.\n" * 4


def labels(n: int) -> list[str]:
    """So many different choices of one to three words."""
    draw = random.Random(n)
    found: dict[str, None] = {}
    while len(found) < n:
        found[" " + " ".join(draw.choices(WORDS, k=draw.randint(1, 3)))] = None
    return list(found)


def sorter(choices: list[str], **options: Any) -> Any:
    """The program."""
    @sgl.program(**options)
    def sort(s: Any, q: Any) -> None:
        s += RULES + "Question: " + q + "\nSubject:"
        s += sgl.select("subject", choices=choices)

    return sort


def one_by_one(engine: Any, question: str, choices: list[str]) -> str:
    """A request a choice, each when the one before has ended."""
    prompt = Prompt.empty(engine.tokenizer).append(f"{RULES}Question: {question}\nSubject:")
    base, rows, _ = ChoiceIds(engine.tokenizer, choices).behind(prompt)
    scores = []
    for row in rows:
        results: list[Result] = []
        engine.submit([Request("score", base + row, results.append, score_from=len(base))])
        engine.core.wait_idle()
        scores.append([lp or 0.0 for lp in results[0].logprobs])
    return choices[choose("token_length_normalized", scores, [])[0]]


def compare(engine: Any, count: int, rounds: int) -> str:
    """A line of the table."""
    choices = labels(count)
    program = sorter(choices)
    program.run(q="warm", backend=engine).sync()
    together, alone, steps, equal = [], [], 0, 0
    for i in range(rounds):
        question = f"what about {WORDS[i % len(WORDS)]} {i}?"
        before = engine.stats().forward_passes
        start = time.perf_counter()
        chosen = program.run(q=question, backend=engine)["subject"]
        together.append(time.perf_counter() - start)
        steps = max(steps, engine.stats().forward_passes - before)
        question = f"what about {WORDS[i % len(WORDS)]} {i}? "  # not in the cache
        start = time.perf_counter()
        one_by_one(engine, question, choices)
        alone.append(time.perf_counter() - start)
        equal += chosen == one_by_one(engine, question[:-1], choices)
    ratios = [b / a for a, b in zip(together, alone, strict=True)]
    return (f"{count:4} choices: {steps} step(s), {statistics.median(together) * 1e3:8.1f} ms; "
            f"one by one {statistics.median(alone) * 1e3:8.1f} ms; ratio "
            f"{statistics.median(ratios):5.1f} ({min(ratios):.1f} to {max(ratios):.1f}); "
            f"same choice in {equal} of {rounds}")


def host_time(count: int, rows: int, rounds: int) -> str:
    """Microseconds of CPU time outside the model, a select of a batch: the program's, and those of
    the engine alone with a request a choice."""
    choices = labels(count)
    program = sorter(choices)
    spent: dict[str, list[float]] = {"program": [], "apart": []}
    with sgl.HashModel() as model:
        ids = ChoiceIds(model.tokenizer, choices)

        def timed(name: str, work: Any) -> None:
            before = model.stats().model_seconds
            start = time.process_time()
            work()
            model.core.wait_idle()
            used = time.process_time() - start - (model.stats().model_seconds - before)
            spent[name].append(used / rows * 1e6)

        for i in range(rounds + 1):
            def apart(i: int = i) -> None:
                requests = []
                for k in range(rows):
                    text = f"{RULES}Question: number {k} of {i}!\nSubject:"
                    base, found, _ = ids.behind(Prompt.empty(model.tokenizer).append(text))
                    requests += [Request("score", base + row, lambda _: None,
                                         score_from=len(base)) for row in found]
                model.submit(requests)

            batch = [{"q": f"number {k} of {i}"} for k in range(rows)]
            timed("program", lambda batch=batch: program.run_batch(batch, backend=model))
            timed("apart", apart)
    one, many = min(spent["program"]), min(spent["apart"])
    return (f"{count:4} choices x {rows} rows: {one:8.0f} us of CPU a select; with a request a "
            f"choice {many:8.0f}, without the program around it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with Progress(6, unit="case", leave=False) as bar:
        with sgl.Engine(args.model) as engine:
            for count in (4, 57, 500):
                bar.say(compare(engine, count, args.rounds if count < 500 else 2))
                bar.step()
        for count, rows in ((4, 128), (57, 32), (500, 4)):
            bar.say(host_time(count, rows, args.rounds))
            bar.step()


if __name__ == "__main__":
    main()
