"""Compiled by any prefix of the -O2 pipeline, a program runs as its eager form does.

A prefix leaves out the later of those passes that a plan can do without.  The hash model answers,
so that any token out of place changes what follows.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sglc
from sglc.lang.program import OPTIONAL_PASSES, Program
from sglc.passes import pipeline
from tests.corpus.test_corpus import NAMES, PROGRAMS, SEED, by_row, make_rows, outcome
from tests.generators import GeneratedProgram, load, programs, run_options

SLOW = settings().max_examples >= 1000
EXAMPLES = 2000 if SLOW else 60
ORDER = list(dict.fromkeys(n for n in pipeline(2).split(",") if n in OPTIONAL_PASSES))
LENGTHS = range(len(ORDER))  # the whole pipeline is what everything else runs


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sglc.HashModel("small") as m:
        yield m


def with_prefix(program: Any, length: int) -> Any:
    """The program, compiled by the passes that it needs and the first of the others."""
    settings = replace(program.settings, without=tuple(ORDER[length:]))
    return Program(program.fn, settings, program.signature)


def test_all_optional_passes_are_in_the_pipeline() -> None:
    assert set(ORDER) == OPTIONAL_PASSES


@pytest.mark.timeout(0 if SLOW else 300)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=programs(max_rows=2), options=run_options, data=st.data())
def test_generated_programs(generated: GeneratedProgram, options: dict[str, Any],
                            data: st.DataObject, model: Any,
                            tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load(generated, tmp_path_factory.getbasetemp())
    rows = [dict(r) for r in generated.rows]
    lengths = LENGTHS if SLOW else [data.draw(st.sampled_from(LENGTHS))]

    def run(program: Any, mode: str) -> Any:
        module.CALLS.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            states = program.run_batch(rows, backend=model, mode=mode, seed=3, **options)
            seen = [outcome(s) for s in states]
        return seen, sorted(map(repr, module.CALLS))

    program = sglc.program(module.prog)
    want = run(program, "eager")
    for length in lengths:
        assert run(with_prefix(program, length), "compiled") == want, ORDER[:length]
    assert model.core.wait_idle(30)
    model.core.check()


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus(name: str, model: Any) -> None:
    spec, calls = PROGRAMS[name]
    rows = make_rows(name, spec)[:None if SLOW else 2]

    def run(program: Any, mode: str) -> Any:
        calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            states = program.run_batch(copy.deepcopy(rows), backend=model, mode=mode, seed=SEED,
                                       max_new_tokens=12)
            return [outcome(s) for s in states], by_row(calls)

    want = run(spec.program, "eager")
    at = NAMES.index(name)
    for length in LENGTHS if SLOW else (at % len(LENGTHS),):
        assert run(with_prefix(spec.program, length), "compiled") == want, ORDER[:length]
