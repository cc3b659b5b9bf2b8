"""A recording's lower bound against the engine's own count, on generated programs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc
from tests.generators import GeneratedProgram, load, programs


@settings(max_examples=12)
@given(generated=programs(), mode=st.sampled_from(["eager", "compiled"]),
       chunk=st.sampled_from([7, 512]))
def test_prefill_is_the_lower_bound(generated: GeneratedProgram, mode: str, chunk: int,
                                    tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stops, selects, samples and constraints included; with what is forced counted as such."""
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sglc.program(module.prog)
    rows = [dict(r) for r in generated.rows]
    with warnings.catch_warnings(), sglc.HashModel(max_batch_tokens=chunk) as model:
        warnings.simplefilter("ignore")
        with model.record() as recording:
            for state in program.run_batch(rows, backend=model, mode=mode, seed=1,
                                           max_new_tokens=16):
                assert state.error() is None
        assert model.core.wait_idle(10)
        stats = model.stats()
        bound = recording.lower_bound()
        assert stats.retractions == 0
        assert stats.prefill_tokens == bound.prefill
        assert stats.prefill_tokens + stats.cached_tokens <= bound.given
        assert stats.kv_peak <= bound.positions == stats.kv_cached


def test_only_what_ends_in_the_block_is_recorded() -> None:
    with sglc.HashModel() as model:
        def ask(text: str) -> Any:
            return model.generate(text, sampling={"max_new_tokens": 3, "ignore_eos": True})

        ask("before")
        with model.record() as recording:
            out = ask("inside")
        ask("after")
    sequence, = recording.sequences
    assert bytes(list(sequence.ids[:sequence.prompt])) == b"inside"
    assert list(sequence.ids[sequence.prompt:]) == out.ids
    assert sequence.kv == 6 + 2  # the last token is not read
