"""What comes after a break and cannot be traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl
from sglc.errors import TraceError

CALLS: list[str] = []


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


@contextlib.contextmanager
def somewhere() -> Iterator[None]:
    yield


def look_up(text: str) -> str:
    CALLS.append(text)
    return text


@sgl.program
def silent(s: Any, q: Any) -> None:
    s += q + sgl.gen("a", max_tokens=4)
    for word in s["a"].split("b"):
        s += "-" + word[:1]
    with somewhere():
        s += sgl.gen("b", max_tokens=3)


@sgl.program
def calling(s: Any, q: Any) -> None:
    s += q + sgl.gen("a", max_tokens=4)
    s += look_up(s["a"])
    for word in s["a"].split("b"):
        s += "-" + word[:1]
    with somewhere():
        s += sgl.gen("b", max_tokens=3)


def test_a_run_without_host_calls_begins_again_in_the_eager_interpreter(model: Any) -> None:
    eager = [s.text() for s in silent.run_batch([("hey",), ("you",)], backend=model, seed=1,
                                                mode="eager")]
    with pytest.warns(sgl.SglcWarning, match="SGLC111"):
        assert silent.run("hey", backend=model, seed=1).text() == eager[0]
    states = silent.run_batch([("hey",), ("you",)], backend=model, seed=1)
    assert [s.text() for s in states] == eager
    assert model.stats().kv_in_use == 0


def test_host_calls_are_never_made_twice(model: Any) -> None:
    CALLS.clear()
    with pytest.raises(TraceError, match="cannot be repeated"):
        calling.run("hey", backend=model, seed=1)
    assert len(CALLS) == 1
    (state,) = calling.run_batch([("hey",)], backend=model, seed=1)
    assert isinstance(state.error(), TraceError) and len(CALLS) == 2
    assert model.stats().kv_in_use == 0
