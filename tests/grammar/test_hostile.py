"""Hostile constraints are compiled or refused, soon and within little memory (see hostile.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from array import array
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hostile import CASES, MEGABYTES, QUICK, SECONDS

import sglc
from sglc import grammar
from sglc.errors import GrammarError
from sglc.runtime.request import Request, SamplingParams

HERE = Path(__file__).parent
# What the message must name, where the constraint is refused.
NAMED = {
    "options-1mb": "100000", "open-groups": "80", "too-deep-groups": "80", "long": "100000",
    "count-of-count": "100000", "lines": "steps", "count-18": "10000", "count-10001": "10000",
    "choices-100000": "500000", "choice-1mb": "500000", "deep-arrays": "100", "deep-text": "100",
    "deep-const": "100", "deep-objects": "100", "deep-all": "100", "enum-100000": "500000",
    "optional-counted": "2000", "one-of-200": "oneOf", "dependent-60": "dependentRequired",
    "grammar-1mb": "100000", "no-base": "$ref", "itself": "$ref", "loop": "$ref",
    "shared-parts": "200000", "look": "look-ahead", "reference": "back-reference"}


def run(names: tuple[str, ...]) -> list[dict[str, Any]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
                                "SGLC_GRAMMAR_CACHE": "off"}
    done = subprocess.run([sys.executable, str(HERE / "hostile.py"), *names], check=True,
                          capture_output=True, text=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results: list[dict[str, Any]]) -> None:
    for r in results:
        assert r["outcome"] in ("compiled", "SGLC006", "SGLC011", "SGLC505"), r
        assert r["seconds"] <= SECONDS and r["megabytes"] <= MEGABYTES, r
        if r["outcome"] != "compiled" and r["name"] in NAMED:
            assert NAMED[r["name"]] in r["text"], r


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")
def test_some_hostile_constraints() -> None:
    results = run(QUICK)
    assert len(results) == len(QUICK)
    check(results)


MEANWHILE = ("exponential-20", "three-counts", "gap", "count-of-count", "choice-1mb", "max-length",
             "counts-of-counts", "doubling-members", "pattern-length", "grammar-doubling")


def test_other_requests_go_on_meanwhile() -> None:
    """Constraints are compiled on the thread that asks for them, not in the engine's loop: what
    runs there goes on, at any time of it."""
    with sglc.HashModel(kv_tokens=1 << 16) as model:
        heard: list[float] = []
        ended, enough = threading.Event(), False

        def ask() -> None:
            model.submit([Request(
                "generate", array("q", [65, 66]), lambda _: ended.set() if enough else ask(),
                SamplingParams(max_tokens=400, temperature=0.0, ignore_eos=True),
                on_text=lambda _: heard.append(time.perf_counter()))])

        ask()
        grammar.compile(regex="a", tokenizer=model.tokenizer)
        for name in MEANWHILE:
            start, before, used = time.perf_counter(), len(heard), time.process_time()
            with suppress(GrammarError):
                grammar.compile(**CASES[name], tokenizer=model.tokenizer)
            end, used = time.perf_counter(), time.process_time() - used
            times = [start, *heard[before:], end]
            gap = max(b - a for a, b in pairwise(times))
            assert gap < 0.5 * SECONDS, (name, gap)
            # Of this process's time: other processes may be busy.
            assert len(heard) - before > 50 * (used - 0.2), name
        enough = True
        assert ended.wait(10)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")
def test_all_hostile_constraints() -> None:
    assert len(CASES) >= 60
    results = run(tuple(CASES))
    assert len(results) == len(CASES)
    check(results)
    refused = {r["name"] for r in results if r["outcome"] != "compiled"}
    assert {"empty", "unspellable", "surrogate", "no-base", "look"} <= refused
