"""`sglc demo`: a tour on a small real model, with every figure measured while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglc.backends.engine import Engine
from sglc.lang.compiled import Compiled, compile_program
from sglc.lang.expressions import assistant, gen, select, system, user
from sglc.lang.program import program
from sglc.lang.state import ProgramState
from sglc.runtime.weights.fetch import DEFAULT_MODEL, fetch_default_model
from sglc.viz.svg import svg

ASKED = {"country": "France"}


@program
def travel_guide(s: Any, country: str) -> list[str]:
    s += system("You are a helpful guide for travellers. You know every city and its sights, "
                "and you answer in one short sentence.")
    s += user(f"What is the capital of {country}?")
    s += assistant(gen("capital", max_tokens=16, stop="\n"))
    s += user("Name one famous building there.")
    s += assistant(gen("sight", max_tokens=24, stop=[".", "\n"]))

    forks = s.fork(2)
    forks[0] += user("Which museum should I visit?")
    forks[1] += user("How do I travel around in the city?")
    for f in forks:
        f += assistant(gen("tip", max_tokens=24, stop=[".", "\n"]))

    s += user("I noted: " + forks[0]["tip"] + ". " + forks[1]["tip"] + ". Where is all this?")
    s += assistant("It is in " + select("continent", ["Africa", "Asia", "Europe"]) + ".")
    s += user("When did the revolution begin there?")
    s += assistant("It began in " + gen("year", regex=r"1[0-9]{3}") + ".")
    return [forks[0]["tip"], forks[1]["tip"]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run from an empty cache, and what `engine.stats()` grew by."""

    what: str
    text: str
    seconds: float
    computed: int  # prompt tokens whose KV was computed
    found: int  # prompt tokens whose KV was there
    generated: int

    def __str__(self) -> str:
        return (f"  {self.what:<33}{self.computed:>9}{self.found:>9}{self.generated:>11}"
                f"{self.seconds:>8.1f} s")


def main(output: str | Path = "sglc-demo.svg") -> int:
    """Compile a program, run it, count its tokens, draw it; 0.  The graph goes to `output`."""
    path = fetch_default_model()
    started = time.perf_counter()
    with Engine(path) as engine:
        print(f"{DEFAULT_MODEL.title}, opened in {time.perf_counter() - started:.1f} s\n")
        compiled = compile_program(travel_guide, (), ASKED, engine, 2, measure=True)
        print("What the compiler did\n")
        print(compiled.explain().short())
        state, first = measured("compiled, radix cache on", engine, "compiled")
        print("\nWhat the program said\n")
        show(state)
        runs = [measured("eager, radix cache on", engine, "eager")[1], first]
    with Engine(path, radix_cache=False) as engine:
        runs = [measured("eager, radix cache off", engine, "eager")[1],
                measured("compiled, radix cache off", engine, "compiled")[1], *runs]
    print("\nWhat it cost: four runs, each from an empty cache\n")
    report(runs)
    draw(compiled, Path(output))
    return 0


def measured(what: str, engine: Engine, mode: str) -> tuple[ProgramState, Run]:
    """One greedy run with nothing cached."""
    engine.flush_cache()
    before, started = engine.stats(), time.perf_counter()
    state = travel_guide.run(**ASKED, backend=engine, mode=mode, temperature=0)
    text = state.text()
    seconds, after = time.perf_counter() - started, engine.stats()
    return state, Run(
        what, text, seconds, after.prefill_tokens - before.prefill_tokens,
        after.cached_tokens - before.cached_tokens, after.decode_tokens - before.decode_tokens)


def show(state: ProgramState) -> None:
    for message in state.messages():
        print(f"  {message['role'] + ':':<11}{message['content']}")
    print("\n  two turns  ", state["capital"], "|", state["sight"])
    print("  fork       ", " | ".join(state.ret_value))
    print("  select     ", state["continent"])
    print("  regex      ", state["year"])


def report(runs: list[Run]) -> None:
    """The table, and what sharing saved.  runs: eager and compiled, without and with a cache."""
    eager, shared, cached, both = runs
    print(f"  {'':<33}{'computed':>9}{'found':>9}{'generated':>11}{'time':>10}")
    for run in runs:
        print(run)
    print("\n  computed, found: prompt tokens whose KV was computed, or was there already\n")
    print(saved("The plan alone", eager, shared, "eager with the radix cache off"))
    print(saved("The plan with the cache", cached, both, "eager with the radix cache on"))
    same = len({run.text for run in runs}) == 1
    print(f"  The four texts are {'equal' if same else 'NOT equal'}.")


def saved(what: str, eager: Run, other: Run, against: str) -> str:
    """One sentence on two runs; the second may also have computed more."""
    less = eager.computed - other.computed
    share = f" ({100 * less / eager.computed:.0f} %)" if less > 0 else ""
    return (f"  {what} computed {other.computed} prompt tokens, {against} {eager.computed}: "
            f"{less} saved{share}.")


def draw(compiled: Compiled, output: Path) -> None:
    output.write_text(svg(compiled.stages["prompt"]), encoding="utf-8")
    print(f"\nThe graph of the program: {output.resolve()}")
