"""What users declare about functions, and what the compiler makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl

CALLS: list[Any] = []


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@sgl.pure
def upper(text: str) -> str:
    CALLS.append(text)
    return text.upper()


@sgl.pure
def words(text: str) -> list[str]:
    CALLS.append(text)
    return text.split()


def test_equal_pure_calls_are_made_once(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "a " + upper(q) + upper(q) + upper(q + "!") + sgl.gen("x", max_tokens=2)

    eager = p.run("hi", backend=model, seed=1, mode="eager").text()
    assert CALLS == ["hi", "hi", "hi!"]
    CALLS.clear()
    assert p.run("hi", backend=model, seed=1).text() == eager
    assert CALLS == ["hi", "hi!"]


def test_pure_calls_that_nothing_needs_are_not_made(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        upper(q)
        s += "a" + sgl.gen("x", max_tokens=2)

    p.run("hi", backend=model, seed=1)
    assert CALLS == []


def test_a_result_that_is_changed_is_the_programs_own(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        a = words(q)
        b = words(q)
        a.append("more")
        s += " ".join(a) + "|" + " ".join(b) + sgl.gen("x", max_tokens=2)

    eager = p.run("one two", backend=model, seed=1, mode="eager").text()
    assert p.run("one two", backend=model, seed=1).text() == eager
    assert "one two more|one two" in eager


def test_duplicates_can_be_kept(model: Any) -> None:
    def body(s: Any, q: Any) -> None:
        a, b = s.fork(2)
        for f in (a, b):
            f += "Q: " + q + sgl.gen("x", max_tokens=3, temperature=0)
        s += a["x"] + b["x"] + sgl.gen("y", max_tokens=2)

    counts = []
    for program in (sgl.program(body), sgl.program(body, without=["merge-duplicates"])):
        with model.record() as run:
            text = program.run("hi", backend=model, seed=1).text()
        counts.append(len(run.sequences))
        assert text == program.run("hi", backend=model, seed=1, mode="eager").text()
    assert counts == [2, 3]


def test_facts_of_builtins_and_bad_ones() -> None:
    assert sgl.pure(len)("abc") == 3
    assert sgl.host(latency=0.2)(upper) is upper
    with pytest.raises(sgl.SglcError, match="SGLC004"):
        sgl.host(upper, latency=-1)
    with pytest.raises(sgl.SglcError, match="SGLC004"):
        sgl.program(without=["tokenize"])
