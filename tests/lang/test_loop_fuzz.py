"""Loops of run-time length, on random programs: compiled == eager, and every module is sound."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc import ir
from sglc.commands.compile import emit
from sglc.errors import SglcError
from sglc.ir.signatures import LOOPS
from sglc.lang import variants
from tests.lang.loop_programs import LoopProgram, load, loop_programs

EXAMPLES = 1000 if settings().max_examples >= 1000 else 30
SEED = 3


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


@pytest.fixture(autouse=True)
def dynamic_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace for any length from the first call on."""
    monkeypatch.setattr(variants, "MAX_LENGTHS", 0)


def meta(state: Any, name: Any) -> Any:
    found = state.get_meta_info(name)
    if isinstance(found, list):  # of n samples
        return [{k: v for k, v in m.items() if k != "cached_tokens"} for m in found]
    if not isinstance(found, dict):
        return found
    return {k: v for k, v in found.items() if k in ("finish_reason", "completion_tokens",
                                                    "prompt_tokens")}


def outcome(state: Any) -> Any:
    error = state.error()
    if error is not None:
        return type(error).__name__, getattr(error, "code", None)
    return (state.text(), state.token_ids(), state.ret_value, state.messages(),
            {n: (state[n], meta(state, n)) for n in sorted(state.variable_names(), key=str)})


def attempt(run: Any) -> Any:
    """What a run comes to, or the error that it raises at once."""
    try:
        return run()
    except Exception as e:
        return type(e).__name__, getattr(e, "code", None)


def calls_of(program: Any, row: Any, model: Any, module: Any, **options: Any) -> Any:
    """One run: what it comes to, the host calls it makes, and what they do to the arguments."""
    module.CALLS.clear()
    given = copy.deepcopy(row)
    found = attempt(lambda: outcome(program.run(**given, backend=model, seed=SEED, **options)))
    return found, list(module.CALLS), given


def streamed(program: Any, row: Any, model: Any, **options: Any) -> Any:
    def run() -> Any:
        state = program.run(**copy.deepcopy(row), backend=model, seed=SEED, stream=True, **options)
        try:
            text = "".join(state.text_iter())
        except Exception:  # a stream that began cannot go on in the eager interpreter
            return "raises"
        return text if state.error() is None else None
    return attempt(run)


def sound(program: Any) -> None:
    """What can be made of looped modules: text, JSON, pictures, explanations, Python."""
    found = [v for vs in program.compiler()._variants._dynamic.values() for v in vs]
    for variant in found:
        compiled = sgl.lang.compiled.Compiled(program, variant, None)
        assert compiled.graph_breaks == 0
        for low in variant.lowered.values():
            compiled = sgl.lang.compiled.Compiled(program, variant, low)
            for module in compiled.stages.values():
                ir.verify(module)
                assert ir.explain_difference(module, ir.parse(ir.print(module))) is None
                data = json.loads(json.dumps(ir.to_json(module)))
                assert ir.explain_difference(module, ir.from_json(data)) is None
            str(compiled.explain()), str(compiled)
            for what in ("svg", "dot", "json", "plan"):
                assert emit(what, compiled)
            try:
                emit("py", compiled)
            except SglcError as e:
                assert e.code == "SGLC008"


def check(generated: LoopProgram, model: Any, level: int,
          tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sgl.program(module.prog, opt_level=level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = {}
        for mode in ("eager", "compiled"):
            rows = copy.deepcopy(list(generated.rows))
            results[mode] = attempt(lambda rows=rows, mode=mode: [
                outcome(s) for s in program.run_batch(rows, backend=model, seed=SEED, mode=mode)])
        assert results["compiled"] == results["eager"]
        for row in generated.rows:
            assert calls_of(program, row, model, module, mode="compiled") == calls_of(
                program, row, model, module, mode="eager")
        row = generated.rows[0]
        assert streamed(program, row, model) == streamed(program, row, model, mode="eager")
        sound(program)
    return program


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=loop_programs(), level=st.sampled_from((2, 2, 1, 0)))
def test_loops_run_as_written(generated: LoopProgram, level: int, model: Any,
                              tmp_path_factory: pytest.TempPathFactory) -> None:
    check(generated, model, level, tmp_path_factory)



@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=loop_programs(max_rows=1))
def test_traces_for_any_length_have_loops(
        generated: LoopProgram, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where there is such a trace, it has no breaks, and lists in it have no length."""
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sgl.program(module.prog)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = variants.trace_any_length(program, generated.rows[0])
    if found is not None:
        assert any(op.name in LOOPS for op in found.trace.module.walk())
        assert not found.trace.breaks
