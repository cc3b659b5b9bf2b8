"""The contract: compiled == eager == the reference, token for token, on the hash model.

Whatever the cache, the size of the KV pool, the chunks of a step and the tokenizer.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sglc
from sglc.config import RunOptions
from sglc.lang import eager_run
from tests.generators import GeneratedProgram, load, programs, run_options
from tests.reference import run_reference
from tests.reference_calls import WholeModel

EXAMPLES = 1000 if settings().max_examples >= 1000 else 50  # all of them: the slow profile
TOKENIZERS = ("bytes", "small", "smollm2")


class Measured(sglc.HashModel):  # type: ignore[misc]
    """Remembers the room that the largest request could need."""

    largest = 0

    def submit(self, requests: Any) -> None:
        for r in requests:
            self.largest = max(self.largest, len(r.ids) + r.sampling.max_tokens + 1)
        super().submit(requests)


@pytest.fixture(scope="module", params=TOKENIZERS)
def models(request: pytest.FixtureRequest) -> Any:
    """The same hash model under different conditions, by name."""
    first = Measured(None if request.param == "bytes" else request.param, ride_tokens=4096)
    tok = first.tokenizer
    out = {
        "roomy": first,
        "no cache": sglc.HashModel(tok, radix_cache=False, jump_forward="off"),
        "small steps": sglc.HashModel(tok, max_batch_tokens=7),
    }
    yield out
    for model in out.values():
        model.close()


def outcome(state: Any) -> dict[str, Any]:
    """What can be seen of a finished run."""
    error = state.error()
    if error is not None:
        return {"error": type(error).__name__}
    names = sorted(map(str, state.variable_names()))
    return {
        "text": state.text(), "ids": state.token_ids(), "messages": state.messages(),
        "variables": {n: state[None if n == "None" else n] for n in names},
        "returned": state.ret_value,
    }


def judged(program: Any, row: dict[str, Any], i: int, model: Any, options: dict[str, Any],
           seed: int) -> dict[str, Any]:
    """The same from the reference interpreter."""
    from sglc.runtime.hash_model import HashRunner

    run = RunOptions(**options)
    ref = run_reference(program.fn, (), row, model=WholeModel(
        HashRunner(model.tokenizer.vocab_size, model.tokenizer)), tokenizer=model.tokenizer,
        template=model.template, options=run, seed=seed, row=i)
    return {"text": ref.text, "ids": ref.ids, "messages": ref.messages,
            "variables": {str(k): ref.variables[k] for k in sorted(ref.variables, key=str)},
            "returned": ref.ret_value}


def run_modes(program: Any, rows: list[dict[str, Any]], models: dict[str, Any],
              options: dict[str, Any], seed: int) -> dict[tuple[str, str], list[Any]]:
    out = {}
    for where, model in models.items():
        for mode in ("eager", "compiled"):
            states = program.run_batch(rows, backend=model, mode=mode, seed=seed, **options)
            out[where, mode] = [outcome(s) for s in states]
            assert model.core.wait_idle(30)
            model.core.check()
            stats = model.stats()
            assert stats.kv_free + stats.kv_cached + stats.kv_in_use == stats.kv_total
            assert stats.kv_in_use == 0
    return out


def check(generated: GeneratedProgram, models: dict[str, Any], options: dict[str, Any],
          tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sglc.program(module.prog)
    rows = [dict(r) for r in generated.rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models["roomy"].largest = 0
        results = run_modes(program, rows, models, options, seed=11)
        # A pool that just holds the largest sequence: everything must still come through.
        with sglc.HashModel(models["roomy"].tokenizer, kv_tokens=max(2, models["roomy"].largest),
                            max_batch_tokens=64) as tight:
            results.update(run_modes(program, rows, {"tight": tight}, options, seed=11))
    for i, row in enumerate(rows):  # the user's Python: the same calls in the same order
        logs = []
        for mode in ("eager", "compiled"):
            module.CALLS.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program.run(**row, backend=models["roomy"], mode=mode, seed=11 + i,
                            **options).sync()
            logs.append(list(module.CALLS))
        assert logs[0] == logs[1]
    wanted = [judged(program, row, i, models["roomy"], options, 11)
              for i, row in enumerate(rows)]
    for (where, mode), got in results.items():
        assert got == wanted, f"{mode}, {where}"
    return program


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=programs(), options=run_options)
def test_every_way_to_run_is_the_reference(
        generated: GeneratedProgram, options: dict[str, Any], models: dict[str, Any],
        tmp_path_factory: pytest.TempPathFactory) -> None:
    check(generated, models, options, tmp_path_factory)


@pytest.fixture
def no_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled run that enters the eager interpreter fails."""
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the eager interpreter was entered")

    for name in ("start", "run_batch", "execute", "nested"):
        monkeypatch.setattr(eager_run, name, refuse)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=programs(max_rows=2), data=st.data())
def test_generated_programs_are_captured_whole(
        generated: GeneratedProgram, data: st.DataObject, no_eager: None,
        tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sglc.program(module.prog)
    for row in generated.rows:
        compiled = program.compile(**row)
        # str(s["list"][-1]) and the like are host calls; nothing needs more than 64 paths.
        assert compiled.graph_breaks == 0, compiled.breaks
    with sglc.HashModel() as model, warnings.catch_warnings():
        warnings.simplefilter("error")
        for state in program.run_batch([dict(r) for r in generated.rows], backend=model):
            assert state.error() is None
