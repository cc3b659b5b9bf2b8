"""The comparison that other tests rely on: it accepts ties and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

import sglc as sgl
from tests.ties import Recorder, assert_equal_up_to_ties


@sgl.program
def capital(s, country):
    s += sgl.user("What is the capital of " + country + "?")
    s += sgl.assistant(sgl.gen("answer", max_tokens=10))


def run(engine: Any, country: str, **options: Any) -> tuple[Recorder, Any]:
    recorder = Recorder(engine)
    return recorder, capital.run(country, backend=recorder, **options)


def test_the_same_run_twice(engine: Any) -> None:
    left, a = run(engine, "France", temperature=0)
    right, b = run(engine, "France", temperature=0, mode="eager")
    assert assert_equal_up_to_ties(left, right, a, b) == 0


def test_different_prompts(engine: Any) -> None:
    left, a = run(engine, "France", temperature=0)
    right, b = run(engine, "Italy", temperature=0)
    with pytest.raises(AssertionError):
        assert_equal_up_to_ties(left, right, a, b)


@pytest.mark.parametrize("ends", [False, True], ids=["another token", "an early end"])
def test_an_answer_that_the_model_does_not_prefer(engine: Any, ends: bool) -> None:
    left, a = run(engine, "France", temperature=0)
    right, b = run(engine, "France", temperature=3.0, seed=1)
    a.sync()
    b.sync()
    (asked, expected), = left.answers
    (sampled, result), = right.answers
    sampled.sampling = asked.sampling  # as if it had been greedy
    if ends:
        result.ids = expected.ids[:3]
    assert result.ids != expected.ids
    with pytest.raises(AssertionError, match="the model prefers one"):
        assert_equal_up_to_ties(left, right, a, b)
    assert assert_equal_up_to_ties(left, right, a, b, tie=100.0) == 1
