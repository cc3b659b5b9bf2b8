"""Canonical jump-forward on SmolLM2, on the CPU: model calls and tokens/s.

The README's character regex and a JSON of 12 fields, one request at a time and in a batch, greedy
and at temperature 1.  Three engines in one process take turns: "masks" samples every token from a
whole row of logits, "off" too, but computes few logits where few tokens are allowed, "safe" also
jumps.  A call is a forward pass, the one that reads the prompt included.  `equal` counts the
requests whose ids are the same for all three (on a real model: up to ties of rounding).  Quote
the ratios: times on a shared machine mean little.

    python -m bench.jump_forward [--prompts 5] [--batch 16] [--threads 2]
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from array import array

import torch

from sglc import grammar
from sglc.backends.engine import open_tokenizer, resolve_model
from sglc.progress import Progress
from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import load_runner
from sglc.runtime.request import Request, Result, SamplingParams

CHARACTER = (
    r"""\{\n"""
    r"""    "name": "[\w\d\s]{1,16}",\n"""
    r"""    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n"""
    r"""    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n"""
    r"""    "occupation": "(student|teacher|auror|ministry of magic|death eater"""
    r"""|order of the phoenix)",\n"""
    r"""    "wand": \{\n"""
    r"""        "wood": "[\w\d\s]{1,16}",\n"""
    r"""        "core": "[\w\d\s]{1,16}",\n"""
    r"""        "length": [0-9]{1,2}\.[0-9]{0,2}\n"""
    r"""    \},\n"""
    r"""    "alive": "(Alive|Deceased)",\n"""
    r"""    "patronus": "[\w\d\s]{1,16}",\n"""
    r"""    "bogart": "[\w\d\s]{1,16}"\n"""
    r"""\}""")
FIELDS = (
    r"""\{"id": [0-9]{1,4}, "name": "[a-zA-Z ]{1,16}", "age": [0-9]{1,2}, "city": "(Paris|Prague"""
    r"""|Rome|Porto)", "email_verified": (true|false), "account_status": "(active|inactive)", """
    r""""favourite_color": "(red|green|grey)", "height_in_cm": 1[0-9]{2}, "is_member": """
    r"""(true|false), "membership_level": "(gold|silver|bronze)", "language": "(en|fr|de|es)", """
    r""""country_of_birth": "(France|Finland|Italy)"\}""")
WHO = ("Harry Potter", "Hermione Granger", "Ron Weasley", "Draco Malfoy", "Luna Lovegood",
       "Neville Longbottom", "Ginny Weasley", "Sirius Black", "Remus Lupin", "Bilbo Baggins")
WHAT = ("{} is a character in a book. Please fill in the following information about {}.\n",
        "Here is a record of {}, in JSON:\n", "Describe {} as JSON.\n", "{}, as JSON: ",
        "Who is {}? Answer in JSON.\n")
PROMPTS = [what.format(who, who) for what in WHAT for who in WHO]


def open_engines() -> dict[str, EngineCore]:
    engines = {}
    for name in ("masks", "off", "safe"):
        runner, about = load_runner(resolve_model(None))
        if name == "masks":
            runner.logits_of = None  # type: ignore[assignment,method-assign]
        engines[name] = EngineCore(runner, open_tokenizer(about), kv_tokens=16384,
                                   jump_forward="safe" if name == "safe" else "off")
    return engines


def ask(engine: EngineCore, requests: list[Request]) -> list[Result]:
    results: dict[int, Result] = {}
    done = threading.Semaphore(0)
    for i, request in enumerate(requests):
        def take(result: Result, i: int = i) -> None:
            results[i] = result
            done.release()

        request.on_done = take
    engine.submit(requests)
    for _ in requests:
        done.acquire()
    return [results[i] for i in range(len(requests))]


def measure(engines: dict[str, EngineCore], pattern: str, prompts: list[str], temperature: float,
            batch: int) -> None:
    tok = engines["off"].tokenizer
    constraint = grammar.compile(regex=pattern, tokenizer=tok)
    groups = [prompts[i:i + batch] for i in range(0, len(prompts), batch)]
    calls, seconds, tokens, forced = (dict.fromkeys(engines, 0.0) for _ in range(4))
    equal = 0
    bar = Progress((len(groups) + 1) * len(engines), unit="run", leave=False)
    for warm, group in [(False, groups[0]), *((True, group) for group in groups)]:
        ids = {}
        for name, engine in engines.items():
            engine.flush_cache()
            before = engine.stats()
            start = time.perf_counter()
            results = ask(engine, [
                Request("generate", array("q", tok.encode(text)), print, SamplingParams(
                    max_tokens=400, temperature=temperature), key, constraint)
                for key, text in enumerate(group)])
            took = time.perf_counter() - start
            after = engine.stats()
            assert all(re.fullmatch(pattern, r.text) for r in results)
            ids[name] = [r.ids for r in results]
            bar.step()
            if warm:
                seconds[name] += took
                calls[name] += after.forward_passes - before.forward_passes
                forced[name] += after.forced_tokens - before.forced_tokens
                tokens[name] += sum(r.output_tokens for r in results)
        if warm:
            equal += sum(a == b == c for a, b, c in zip(*ids.values(), strict=True))
    bar.close()
    rate = {name: tokens[name] / seconds[name] for name in engines}
    n = len(groups)
    print(f"  batch {batch:<3} T={temperature:g}  tokens {tokens['safe'] / len(prompts):6.1f} "
          f"forced {forced['safe'] / tokens['safe']:4.0%}  calls {calls['off'] / n:6.1f} -> "
          f"{calls['safe'] / n:5.1f} ({calls['safe'] / calls['off']:4.0%})  tokens/s "
          f"{rate['masks']:6.1f}, {rate['off']:6.1f} -> {rate['safe']:6.1f} "
          f"({rate['safe'] / rate['masks']:.2f}x, {rate['safe'] / rate['off']:.2f}x)  "
          f"equal {equal}/{len(prompts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engines = open_engines()
    print('tokens/s: "masks", "off" -> "safe" (ratio to each)')
    for title, pattern in (("character regex", CHARACTER), ("12-field JSON", FIELDS)):
        print(f"{title} (goals: calls <= 40 %, tokens/s >= 2.5x masks)")
        for temperature in (0.0, 1.0):
            measure(engines, pattern, PROMPTS[:options.prompts], temperature, 1)
        measure(engines, pattern, PROMPTS[:options.batch], 1.0, options.batch)
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
