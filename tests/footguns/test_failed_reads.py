"""Runs in which a model call, a read or a host call fails: compiled is eager in all that a caller
can see of them.  A gen on an empty prompt fails here (SGLC507)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from tests.footguns.failing_programs import Writer, check, outcome

CALLS: list[Any] = []


def host(x: Any) -> str:
    CALLS.append(x)
    return "h"


def raises(x: Any) -> None:
    raise ValueError(x)


def grow(words: list[str]) -> None:
    words.append("grown")


def grow_and_raise(words: list[str]) -> None:
    words.append("grown")
    raise ValueError(len(words))


@sgl.program
def child(s: Any, q: str) -> None:
    s += sgl.gen("c", max_tokens=1)
    s += q


CASES: list[Callable[..., Any]] = []


def case(fn: Callable[..., Any]) -> Callable[..., Any]:
    CASES.append(fn)
    return fn


# -- reads whose value is used nowhere -----------------------------------------------------------
@case
def variable_of_a_fork(s: Any, q: str) -> None:
    f = s.fork(1)
    f[0] += sgl.gen("a", max_tokens=1)
    s["before"] = 1
    f[0]["a"]
    s["after"] = 2
    s += q


@case
def behind_a_host_call(s: Any, q: str) -> None:
    f = s.fork(1)
    f[0] += sgl.gen("a", max_tokens=1)
    host(1)
    f[0]["a"]
    s += q + sgl.gen("b", max_tokens=2)


@case
def sync_of_a_fork(s: Any, q: str) -> int:
    f = s.fork(1)
    f[0] += sgl.gen("a", max_tokens=1)
    s += q
    f[0].sync()
    return 5


@case
def text_of_a_program(s: Any, q: str) -> None:
    c = child(q)
    s += sgl.user(q)
    c.text()
    s += sgl.user("never")


@case
def what_is_known_of_a_gen(s: Any, q: str) -> None:
    c = child(q)
    s += q
    c.get_meta_info("c")
    s += "never"


@case
def in_the_arm_of_an_if(s: Any, q: str) -> None:
    c = child(q)
    s += q + sgl.select("w", ["a", "b"])
    if s["w"] == "a":
        s += "A" + c["c"]
    else:
        s["k"] = 1
        s += "B" + c["c"] + "!"
    s["after"] = 1
    s += "end"


@case
def one_arm_reads(s: Any, q: str) -> None:
    c = child(q)
    s += q + sgl.gen("g", max_tokens=1)
    if s["g"] != "nothing":
        c.sync()
    host("after")
    s["k"] = 1


@case
def one_arm_appends(s: Any, q: str) -> None:
    c = child(q)
    s += q + sgl.gen("g", max_tokens=1)
    if s["g"] == "nothing":
        s += c["c"]
    c["c"]
    s += "never"


@case
def one_arm_takes(s: Any, q: str) -> None:
    c = child(q)
    s += q + sgl.gen("g", max_tokens=1)
    taken = "k"
    if s["g"] == "nothing":
        taken = c["c"]
    s += taken
    c["c"]
    s += "never"


@case
def each_arm_takes_another(s: Any, q: str) -> None:
    f = s.fork(2)
    f[1] += q
    f += sgl.gen("a", max_tokens=1)
    s += q + sgl.gen("g", max_tokens=1)
    if s["g"] == "nothing":
        taken = f[0]["a"]
    else:
        taken = f[1]["a"]
    s += taken
    f[0]["a"]
    s += "never"


@case
def a_test_that_fails(s: Any, q: str) -> None:
    c = child(q)
    s["k"] = 0
    s += q
    if c["c"] == "x":
        s += "A"
        s["k"] = 1
    else:
        host(2)
        s["k"] = 2
    s += "end"


@case
def a_test_behind_a_call_that_raises(s: Any, q: str) -> None:
    c = child(q)
    s += q
    raises("first")
    if c["c"] == "x":
        s += "A"
    s += "z"


@case
def nothing_reads(s: Any, q: str) -> None:
    child(q)
    f = s.fork(2)
    f += sgl.gen("a", max_tokens=1)
    s += q + sgl.gen("b", max_tokens=2)


# -- reads whose value goes somewhere ------------------------------------------------------------
@case
def returned(s: Any, q: str) -> Any:
    c = child(q)
    s += q
    s["w"] = "w"
    return [c["c"]]


@case
def set_and_appended(s: Any, q: str) -> None:
    c = child(q)
    s += q
    s["w"] = c["c"]
    s += c["c"] + "later"


@case
def joined(s: Any, q: str) -> None:
    f = s.fork(2)
    f[0] += q
    s += q
    f += sgl.gen("a", max_tokens=1)
    f.join()
    s["w"] = "w"
    s += "later" + sgl.gen("b", max_tokens=2)


@case
def joined_texts(s: Any, q: str) -> None:
    f = s.fork(2)
    f[1] += q
    f += sgl.gen("a", max_tokens=1)
    s += "before"
    f.join("concate_and_append")
    s += "later"


@case
def own_gen(s: Any, q: str) -> None:
    words = [q]
    s["words"] = words
    s += sgl.gen("a", max_tokens=1)
    words.append("seen")
    s["a"]
    words.append("never")
    s["w"] = "w"


@case
def own_gen_in_a_test(s: Any, q: str) -> None:
    s["k"] = 0
    s += sgl.gen("a", max_tokens=1)
    if s["a"] == "x":
        s["k"] = 1
    s["m"] = 1
    host(1)


@case
def own_gen_then_a_call_that_raises(s: Any, q: str) -> None:
    s += sgl.gen("a", max_tokens=1)
    s["k"] = 1
    raises("later")


@case
def variable_set_twice(s: Any, q: str) -> None:
    c = child(q)
    s["v"] = 1
    c["c"]
    s["v"] = 2


@case
def behind_a_break(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    c = child(q)
    for letter in s["a"]:
        s += letter
    c["c"]
    s += "never"


# -- try -----------------------------------------------------------------------------------------
@case
def caught(s: Any, q: str) -> None:
    c = child(q)
    s += q
    try:
        x = c["c"]
    except sgl.SglcError:
        x = "caught"
    s += x + sgl.gen("b", max_tokens=1)


@case
def caught_samples(s: Any, q: str) -> None:
    f = s.fork(1)[0]
    f += sgl.gen("a", max_tokens=1, n=2)
    s += q
    try:
        x = f["a"][1]
    except Exception as e:
        x = type(e).__name__
    s += x


@case
def not_caught(s: Any, q: str) -> None:
    c = child(q)
    s += q
    try:
        x = c["c"]
    except ValueError:
        x = "caught"
    finally:
        host("finally")
    s += x


@case
def read_before_try(s: Any, q: str) -> None:
    s += sgl.gen("a", max_tokens=1)
    y = s["a"]
    try:
        x = s["a"] + y
    except Exception:
        x = "caught"
    host(x)


@case
def not_read_in_try(s: Any, q: str) -> None:
    c = child(q)
    s += q
    try:
        x = c["c"] if q == "never" else host(q)
    except Exception:
        x = "caught"
    s += x


# -- variables that are changed in place before something raises -----------------------------------
@case
def changed_before_a_call(s: Any, q: str) -> None:
    words, table = [q], {"k": [q]}
    s["words"], s["both"] = words, (words, table)
    s += q + sgl.gen("a", max_tokens=1)
    words.append(s["a"])
    table["k"].append("in")
    raises(q)
    words.append("never")


@case
def changed_before_a_conversion(s: Any, q: str) -> None:
    words = [q]
    s["words"] = words
    s += q + sgl.gen("a", max_tokens=1)
    words.append("z")
    int(s["a"] + "x")
    words.append("never")


@case
def changed_in_a_call(s: Any, q: str) -> None:
    words = [q]
    s["words"], s["table"] = words, {"k": words}
    s += q
    grow(words)
    words.append("own")
    raises(q)


@case
def changed_in_the_call_that_raises(s: Any, q: str) -> None:
    words = [q]
    s["words"] = words
    s += q
    grow_and_raise(words)


@case
def changed_on_one_way(s: Any, q: str) -> None:
    words = [q]
    s["words"] = words
    s += q + sgl.gen("a", max_tokens=1)
    words.append("z")
    if s["a"] != "nothing":
        words.append("A")
        raises(1)
    words.append("B")
    raises(2)


@case
def changed_before_a_branch(s: Any, q: str) -> None:
    words = [q]
    s["words"] = words
    c = child(q)
    s += q + sgl.gen("a", max_tokens=1)
    words.append("z")
    if s["a"] == "nothing":
        c.sync()
    s += "end"


def seen(program: Any, model: Any, mode: str) -> Any:
    CALLS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [outcome(state) for state in program.run_batch(
            [("x",), ("y",)], backend=model, seed=1, mode=mode, max_new_tokens=4)]
    return rows, sorted(map(repr, CALLS))


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_what_is_left_of_a_run(fn: Callable[..., Any], model: Any) -> None:
    program = sgl.program(fn)
    eager = seen(program, model, "eager")
    assert seen(program, model, "compiled") == eager
    assert program.compile("x").variant.trace is not None


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_what_is_streamed(fn: Callable[..., Any], model: Any) -> None:
    """Nothing of what the program would have added behind what raises."""
    program = sgl.program(fn)
    assert streamed(program, model, "compiled") == streamed(program, model, "eager")


def streamed(program: Any, model: Any, mode: str) -> Any:
    pieces = []
    state = program.run("x", backend=model, seed=1, mode=mode, stream=True)
    try:
        for piece in state.text_iter():
            pieces.append(piece)
    except Exception as e:
        pieces.append(type(e).__name__)
    return "".join(pieces), outcome(state)["error"]


def test_errors_of_reads_have_their_places(model: Any) -> None:
    texts = []
    for mode in ("eager", "compiled"):
        (state,) = sgl.program(in_the_arm_of_an_if).run_batch([("x",)], backend=model, seed=1,
                                                              mode=mode)
        texts.append(str(state.error()))
    assert texts[0] == texts[1] and '"B" + c["c"]' in texts[0]


def test_run_raises_what_the_body_raised(model: Any) -> None:
    for mode in ("eager", "compiled"):
        with pytest.raises(sgl.SglcError, match="SGLC507"):
            sgl.program(behind_a_host_call).run("x", backend=model, seed=1, mode=mode)


def test_variables_are_in_the_order_of_the_way_taken(model: Any) -> None:
    def two_ways(s: Any, q: str) -> None:
        s += "p" + sgl.gen("g", max_tokens=1)
        if s["g"] == "nothing":
            s["a"] = s["b"] = q
        else:
            s["b"] = s["a"] = s["g"] = q
        s["c"] = q

    for mode in ("eager", "compiled"):
        (state,) = sgl.program(two_ways).run_batch([("x",)], backend=model, mode=mode)
        assert state.variable_names() == ["g", "b", "a", "c"]


def reads(fn: Callable[..., Any]) -> list[list[str]]:
    """The kinds of what each `prompt.read` of a program waits for."""
    return [[o.type.name for o in op.operands[1:]] for op in sgl.program(fn).trace("q").walk()
            if op.name == "prompt.read"]


def test_only_what_may_fail_alone_is_an_operation() -> None:
    """Reads of the run's own calls fail with its prompt; what a join waits for is read once."""
    def own(s: Any, q: str) -> Any:
        s += q + sgl.gen("a", max_tokens=2)
        if s["a"] == "x":
            s += s["a"]
        with s.user():
            s += s["a"] + s.text() + sgl.gen("b", max_tokens=2)
        host(s["b"])
        return s["b"]

    def of_forks(s: Any, q: str) -> Any:
        f = s.fork(2)
        f += q + sgl.gen("b", max_tokens=2)
        f.join()
        s += f[0]["b"] + s["b"][1] + s.text()
        return f[1]["b"]

    def in_a_line(s: Any, q: str) -> Any:
        f = s.fork(2)
        f += q + sgl.gen("b", max_tokens=2)
        s += f[0]["b"] + f[1]["b"]

    assert reads(own) == []
    assert reads(of_forks) == [["prompt", "prompt"]]
    assert reads(in_a_line) == [["text", "text"]]


@pytest.mark.parametrize("numbers", [
    range(70), pytest.param(range(70, 3000), marks=pytest.mark.slow)], ids=["few", "many"])
def test_random_programs(numbers: range, model: Any, tmp_path: Path) -> None:
    for seed in numbers:
        check(Writer(seed), [("x",), ("",)], model, tmp_path)
