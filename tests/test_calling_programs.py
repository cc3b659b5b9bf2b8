"""Programs with helpers, nested programs and host calls: compiled == eager, calls included."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import sglc
from tests.generators import GeneratedProgram, load, programs
from tests.generators_calls import calling_programs
from tests.test_equivalence import outcome

EXAMPLES = 2000 if settings().max_examples >= 1000 else 40  # 2,000: the slow profile


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sglc.HashModel() as m:
        yield m


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=st.one_of(calling_programs(), calling_programs(), programs()))
def test_compiled_is_eager(generated: GeneratedProgram, model: Any,
                           tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sglc.program(module.prog)
    rows = [dict(r) for r in generated.rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, row in enumerate(rows):
            seen = []
            for mode in ("eager", "compiled"):
                module.CALLS.clear()
                try:
                    result = outcome(program.run(**row, backend=model, mode=mode, seed=i,
                                                 max_new_tokens=4))
                except (TypeError, LookupError) as e:  # the program's own, in both modes
                    result = {"error": type(e).__name__, "what": str(e)}
                seen.append((result, list(module.CALLS)))
            assert seen[0] == seen[1]
        batches = [[outcome(s) for s in program.run_batch(
            [dict(r) for r in rows], backend=model, mode=mode, seed=7, max_new_tokens=4)]
            for mode in ("eager", "compiled")]
        assert batches[0] == batches[1]
    assert model.core.wait_idle(30)
    assert model.stats().kv_in_use == 0


def test_all_kinds_of_calls_occur() -> None:
    """Helpers, nested programs, inner functions, loops and branches on host results, batches."""
    seen: Counter[str] = Counter()
    marks = {"helper": " = help", "program": " = sub", "inner": "inner(", "while": "while more(",
             "if": "if check(", "for": "in pieces(", "try": "try:", "fork": ".fork(",
             "method": ".note(", "collected": "acc.append("}

    @settings(max_examples=150, phases=[Phase.generate], database=None, derandomize=True,
              suppress_health_check=list(HealthCheck), deadline=None)
    @given(generated=calling_programs())
    def look(generated: GeneratedProgram) -> None:
        body = generated.source.partition("def prog(")[2]
        compile(generated.source, "<generated>", "exec")
        seen.update(kind for kind, mark in marks.items() if mark in body)
        seen["batch"] += len(generated.rows) > 1

    look()
    assert min(seen[kind] for kind in (*marks, "batch")) >= 5, seen
