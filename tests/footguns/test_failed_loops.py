"""Runs in which a model call fails in a loop of run-time length, or is read behind one: compiled is
eager in all that a caller can see of them.  A gen on an empty prompt fails here (SGLC507)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc.lang import variants
from tests.footguns.failing_programs import ListWriter, check, outcome

ROWS = [("x", ["x", "y"]), ("x", ["x", ""]), ("", ["", "x", "y"]), ("q", ["a", "", "b", ""]),
        ("x", ["x", "", ""])]


@pytest.fixture(autouse=True)
def any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops are traced for any length at once."""
    monkeypatch.setattr(variants, "MAX_LENGTHS", 0)


@sgl.program
def child(s: Any, q: str) -> None:
    s += sgl.gen("c", max_tokens=1)
    s += q


def one_way_in_a_round(s: Any, q: str, xs: list[str]) -> None:
    c = child(q)
    s += q
    for _ in xs:
        s += "k" + sgl.gen("g", max_tokens=1)
        if s["g"] == "nothing":
            s += c["c"]
    c["c"]
    s += "never"


def one_fork_then_another(s: Any, q: str, xs: list[str]) -> None:
    f = s.fork(len(xs))
    for i, x in enumerate(xs):
        f[i] += x + sgl.gen("a", max_tokens=1)
    s += q
    f[0]["a"]
    s += "first"
    f[1]["a"]
    s += "second"


def forks_in_texts(s: Any, q: str, xs: list[str]) -> None:
    f = s.fork(len(xs))
    for i, x in enumerate(xs):
        f[i] += x + sgl.gen("a", max_tokens=1)
    s += q + f[0]["a"]
    s += f[1]["a"] + "never"


def a_fork_that_goes_on(s: Any, q: str, xs: list[str]) -> None:
    f = s.fork(1)[0]
    f += q
    s += "p"
    for x in xs:
        f += sgl.gen("a", max_tokens=1)
        s += x
    f["a"]
    s += "never"


def read_in_each_round(s: Any, q: str, xs: list[str]) -> None:
    f = s.fork(len(xs))
    for i, x in enumerate(xs):
        f[i] += x + sgl.gen("a", max_tokens=1)
    s += q
    for g in f:
        s += "r"
        g["a"]
        s += "k"
    s += "end"


@pytest.mark.parametrize("fn", [
    one_way_in_a_round, one_fork_then_another, forks_in_texts, a_fork_that_goes_on,
    read_in_each_round], ids=lambda fn: fn.__name__)
def test_what_is_left_of_a_run(fn: Callable[..., Any], model: Any) -> None:
    program = sgl.program(fn)
    eager, compiled = ([outcome(state) for state in program.run_batch(
        ROWS, backend=model, seed=1, mode=mode)] for mode in ("eager", "compiled"))
    assert compiled == eager
    assert loops(program)


def loops(program: Any) -> bool:
    """Whether it was compiled for any length."""
    trace = program.compile(*ROWS[0]).variant.trace
    return trace is not None and any(op.name in ("prompt.for", "prompt.map")
                                     for op in trace.module.walk())


@pytest.mark.parametrize("numbers", [
    range(30), pytest.param(range(30, 600), marks=pytest.mark.slow)], ids=["few", "many"])
def test_random_programs(numbers: range, model: Any, tmp_path: Path) -> None:
    programs = [check(ListWriter(seed), ROWS, model, tmp_path) for seed in numbers]
    assert sum(map(loops, programs)) > len(programs) / 2
