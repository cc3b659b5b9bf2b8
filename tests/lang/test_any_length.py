"""Programs that are called with many lengths of lists: one variant for all of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc.ir.signatures import LOOPS
from sglc.lang import variants
from tests.lang import any_length_programs as programs

SEED = 3


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


@pytest.fixture(autouse=True)
def dynamic_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace for any length from the first call on."""
    monkeypatch.setattr(variants, "MAX_LENGTHS", 0)


def dynamic_variants(program: Any) -> list[Any]:
    return [v for found in program.compiler()._variants._dynamic.values() for v in found]


def fresh(program: Any) -> Any:
    """The program without variants."""
    return sgl.program(program.fn)


def outcome(state: Any) -> Any:
    error = state.error()
    if error is not None:
        return type(error), str(error).splitlines()[0]
    return (state.text(), state.token_ids(), state.ret_value, state.messages(),
            {n: state[n] for n in state.variable_names()})


def same(program: Any, rows: list[Any], model: Any) -> None:
    given = [copy.deepcopy(rows) for _ in range(2)]
    compiled = program.run_batch(given[0], backend=model, seed=SEED)
    eager = program.run_batch(given[1], backend=model, seed=SEED, mode="eager")
    assert [outcome(s) for s in compiled] == [outcome(s) for s in eager]
    assert given[0] == given[1]  # what host calls do to the arguments


texts = st.lists(st.sampled_from(["one", "b", "", "the third", "naïve "]), max_size=6)


@pytest.mark.parametrize("program", programs.OVER_DOCS, ids=lambda p: p.name)
@settings(max_examples=4, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=4))
def test_over_a_list_of_texts(program: Any, batch: list[Any], model: Any) -> None:
    same(fresh(program), [(docs,) for docs in batch], model)


@pytest.mark.parametrize("program", programs.OVER_DOCS, ids=lambda p: p.name)
def test_one_variant_for_all_lengths(program: Any, model: Any) -> None:
    program = fresh(program)
    same(program, [(["x"] * n,) for n in range(1, 9)], model)
    (variant,) = dynamic_variants(program)
    assert any(op.name in LOOPS for op in variant.trace.module.walk())


@pytest.mark.parametrize("program", programs.OVER_COUNT, ids=lambda p: p.name)
def test_over_a_count(program: Any, model: Any) -> None:
    program = fresh(program)
    same(program, [(n,) for n in range(0, 7)], model)
    assert dynamic_variants(program)


@pytest.mark.parametrize("program", programs.OVER_RECORDS, ids=lambda p: p.name)
def test_over_records_and_nested_lists(program: Any, model: Any) -> None:
    program = fresh(program)
    rows = [([{"name": f"n{i}", "tags": ["t"] * (i + 1)} for i in range(n)],)
            for n in range(1, 5)]
    same(program, rows, model)
    assert dynamic_variants(program)


@pytest.mark.parametrize("program", programs.KEPT_APART, ids=lambda p: p.name)
def test_more_than_a_loop_can_hold(program: Any, model: Any) -> None:
    """Each length has a variant of its own, and the results are right."""
    program = fresh(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(program, [(["x", "yes", "z"][:n] * 2,) for n in range(1, 4)], model)
    assert not dynamic_variants(program)


def test_many_rows_of_many_lengths_need_few_compiles(
        model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "MAX_LENGTHS", 8)
    made: list[Any] = []
    for name in ("trace_variant", "trace_any_length"):
        trace = getattr(variants, name)
        monkeypatch.setattr(variants, name, lambda *a, t=trace: made.append(t(*a)) or made[-1])
    program = fresh(programs.listed)
    rows = [(["d"] * (1 + n % 300),) for n in range(1000)]
    states = program.run_batch(rows, backend=model, seed=SEED)
    assert len(made) <= 9 and all(v is not None and v.trace is not None for v in made)
    assert [s.ret_value for s in states] == [len(r[0]) for r in rows]
    eager = program.run_batch(rows[:20], backend=model, seed=SEED, mode="eager")
    assert [s.text() for s in states[:20]] == [s.text() for s in eager]


def test_streams(model: Any) -> None:
    program = fresh(programs.tell)
    row = (["a", "b", "c"],)
    pieces = list(program.run(*row, backend=model, seed=SEED, stream=True).text_iter())
    whole = program.run(*row, backend=model, seed=SEED, mode="eager").text()
    assert "".join(pieces) == whole


def test_rows_of_one_batch_share_steps_by_length(model: Any) -> None:
    program = fresh(programs.tell)
    rows = [(["q"] * n,) for n in (1, 2, 1, 2, 2)]
    program.run_batch(rows, backend=model, seed=SEED)
    (variant,) = dynamic_variants(program)
    (lowered,) = variant.lowered.values()
    assert sorted(lowered._codes) == [(1,), (2,)]
