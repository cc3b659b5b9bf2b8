"""Programs as people write them: compiled is eager, and the graph breaks only where it must.

A program is captured whole unless a line of it says `# expect: SGLCnnn`; then the graph breaks
there, with that code, and nowhere else.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import linecache
import random
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import sglc as sgl
from sglc.errors import Diagnostic
from tests.corpus.spec import Spec

SLOW = settings().max_examples >= 1000
ROWS = 20 if SLOW else 4
TOKENIZERS = ("bytes", "small") if SLOW else ("bytes",)
SEED = 5

# Programs without an expected break that break today, and the code.
NOT_YET: dict[str, str] = {}

MODULES = {p.stem: importlib.import_module(f"tests.corpus.{p.stem}")
           for p in sorted(Path(__file__).parent.glob("*.py"))
           if p.stem != "spec" and not p.stem.startswith("test_")}
PROGRAMS: dict[str, tuple[Spec, list[Any]]] = {
    spec.program.name: (spec, module.CALLS)
    for module in MODULES.values() for spec in module.SPECS}

NAMES = sorted(PROGRAMS)
EXPECTATION = re.compile(r"# expect: (SGLC\d{3})")


def expected(spec: Spec) -> set[str]:
    """The codes with which a program's lines say that the graph breaks."""
    return set(EXPECTATION.findall(inspect.getsource(spec.program.fn)))


def announced(diagnostic: Diagnostic) -> bool:
    """Whether the line that a break points at says so."""
    place = diagnostic.place
    line = "" if place is None else linecache.getline(place.file, place.line)
    return diagnostic.code in EXPECTATION.findall(line)


@pytest.fixture(scope="module", params=TOKENIZERS)
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with sgl.HashModel(None if request.param == "bytes" else request.param) as m:
        yield m


def outcome(state: Any) -> dict[str, Any]:
    """What can be seen of a finished run."""
    error = state.error()
    out = {"variables": {n: state[n] for n in state.variable_names()}}
    if error is not None:
        return {**out, "error": (type(error), str(error))}
    return {**out, "text": state.text(), "ids": state.token_ids(), "messages": state.messages(),
            "returned": state.ret_value}


def by_row(calls: list[Any]) -> dict[str, list[Any]]:
    """The calls of each row, in the order in which the row made them."""
    out: dict[str, list[Any]] = {}
    for tag, *call in calls:
        out.setdefault(tag, []).append(call)
    return out


def make_rows(name: str, spec: Spec) -> list[dict[str, Any]]:
    rng = random.Random(name)
    return [spec.arguments(rng) for _ in range(ROWS)]


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_breaks_where_the_program_says(name: str) -> None:
    spec, calls = PROGRAMS[name]
    calls.clear()
    rows = make_rows(name, spec)
    given = copy.deepcopy(rows)
    breaks = [d for row in given for d in spec.program.compile(**row).breaks]
    assert calls == [] and given == rows, "compiling ran a part of the program"
    assert [d for d in breaks if not announced(d) and d.code != NOT_YET.get(name)] == []
    if name not in NOT_YET:
        assert {d.code for d in breaks} == expected(spec)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_is_eager(name: str, model: Any) -> None:
    spec, calls = PROGRAMS[name]
    rows = make_rows(name, spec)
    results = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for mode in ("eager", "compiled", "compiled again"):
            calls.clear()
            given = copy.deepcopy(rows)
            states = spec.program.run_batch(given, backend=model, seed=SEED,
                                            mode=mode.split()[0], max_new_tokens=12)
            results[mode] = [outcome(s) for s in states], by_row(calls), given
            assert model.core.wait_idle(30)
            model.core.check()
    for mode in ("compiled", "compiled again"):
        for what, got, wanted in zip(("states", "calls", "arguments"), results[mode],
                                     results["eager"], strict=True):
            assert got == wanted, f"{what}, {mode}"
    codes = {getattr(getattr(w.message, "diagnostic", None), "code", str(w.message))
             for w in caught}
    assert codes <= expected(spec) | ({NOT_YET[name]} if name in NOT_YET else set())
    if not spec.fails:
        assert not any("error" in r for r in results["eager"][0])
    assert model.stats().kv_in_use == 0


def test_programs_differ_between_rows(model: Any) -> None:
    """The inputs reach different branches: a corpus of one path would show little."""
    same = []
    for name, (spec, _) in PROGRAMS.items():
        states = spec.program.run_batch(make_rows(name, spec), backend=model, seed=SEED,
                                        mode="eager", max_new_tokens=12)
        if len({str(outcome(s)) for s in states}) == 1:
            same.append(name)
    assert same == []


def test_the_corpus_is_large_enough() -> None:
    whole = [name for name, (spec, _) in PROGRAMS.items() if not expected(spec)]
    assert len(PROGRAMS) >= 44 and len(whole) >= 36
    assert len(PROGRAMS) == sum(len(m.SPECS) for m in MODULES.values()), "names clash"
    assert set(NOT_YET) <= set(whole)
