"""What a trace was made for is not what it is used for: other arguments, other values that are
equal, other paths.  And what is traced twice (an arm that turned out not to merge) leaves nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import sglc as sgl

LOG: list[Any] = []
NAME = "n0"


def log(*values: Any) -> Any:
    LOG.append(values)
    return values[0]


def outcome(state: Any) -> Any:
    error = state.error()
    if error is not None:
        return type(error), str(error)
    return (state.text(), state.token_ids(), repr(state.ret_value),
            {n: state[n] for n in state.variable_names()})


def same(fn: Callable[..., Any], model: Any, rows: list[tuple[Any, ...]]) -> list[Any]:
    """Runs of all rows in both modes, in order and backwards, and a batch; those in order."""
    seen = {}
    for mode in ("eager", "compiled", "compiled again"):
        program = sgl.program(fn)
        LOG.clear()
        got = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for order in (rows, rows[::-1]):
                if mode == "compiled":
                    program = sgl.program(fn)
                for row in order:
                    try:
                        got.append(outcome(program.run(
                            *row, backend=model, seed=5, max_new_tokens=3, mode=mode.split()[0])))
                    except Exception as e:
                        got.append((type(e), str(e)))
            logged = list(LOG)
            batch = program.run_batch(rows, backend=model, seed=5, max_new_tokens=3,
                                      mode=mode.split()[0])
            got += map(outcome, batch)
        seen[mode] = got, logged
    assert seen["compiled"] == seen["eager"]
    assert seen["compiled again"] == seen["eager"]
    return seen["eager"][0][: len(rows)]


# -- other arguments ---------------------------------------------------------------------------
def test_what_comes_after_a_break_asks_for_arguments(model: Any) -> None:
    def p(s: Any, q: str, n: Any, words: list[str]) -> Any:
        s += "x" + sgl.gen("a", regex="[ab] [cd]", max_tokens=4)
        for w in s["a"].split():
            s += w
        if q == "b":
            s += "B"
        s += f"{n}{n == 1}" + sgl.gen("z", regex=f"{q}[0-9]", max_tokens=4)
        for w in words:
            s += w
        return len(words)

    rows: list[tuple[Any, ...]] = [
        (q, n, words) for q in "ab" for n in (1, True, 1.0, None)
        for words in (["k"], [], ["l", "m"])]
    assert len({text for text, *_ in same(p, model, rows)}) == len(rows)


def test_what_comes_after_a_break_reads_globals(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)
        forks = s.fork(len(s["a"]))
        s += NAME + str(len(forks))

    global NAME
    try:
        for name in ("n1", "n2", "n1"):
            NAME = name
            for mode in ("eager", "compiled"):
                assert name in p.run(backend=model, seed=1, mode=mode).text()
    finally:
        NAME = "n0"


def test_numbers_that_are_equal_in_guards(model: Any) -> None:
    def p(s: Any, n: Any) -> Any:
        s += "x"
        if str(n * 1) != "2.0":
            s += "A"
        if str(n * 1.0) != "2.0":
            s += "B"
        s += f"{n + 1} {n + 1.0} {n * True}" + sgl.gen("a")
        return [n + 0, n + 0.0, n - False]

    got = same(p, model, [(3,), (2,), (4,), (2.0,), (True,)])
    assert [g[0][1:3] for g in got[:2]] == ["AB", "A3"]


def test_keys_that_are_equal(model: Any) -> None:
    def p(s: Any, table: dict[Any, str]) -> Any:
        s += f"{table}" + sgl.gen("a")
        return table

    keys = [1, True, 1.0, (1,), (True,), (1.0,), 0.0, -0.0, (0.0,), (-0.0,)]
    same(p, model, [({k: "x"},) for k in keys])


@sgl.pure
def shown(text: str, n: Any) -> str:
    return f"{text}{n!r}"


def test_pure_calls_with_equal_arguments(model: Any) -> None:
    def p(s: Any, q: str) -> Any:
        s += q + sgl.gen("a")
        s += shown(s["a"], 1) + shown(s["a"], True) + shown(s["a"], 1.0) + shown(s["a"], 1)

    assert all("True" in text and "1.0" in text for text, *_ in same(p, model, [("a",), ("b",)]))


# -- other paths -------------------------------------------------------------------------------
@sgl.program
def inner(s: Any, x: str) -> str:
    s += f"<{x}" + sgl.gen("o", max_tokens=2)
    return s["o"]


def test_programs_called_in_arms(model: Any) -> None:
    """Their gens draw what the eager ones draw."""
    def p(s: Any, q: str) -> None:
        s += q + sgl.gen("a", max_tokens=1)
        if s["a"] > "m":
            s += inner(s["a"])["o"]
        elif s["a"] > "a":
            s += inner("e")["o"] + inner("f")["o"]
        s += inner("end")["o"]

    same(p, model, [(c,) for c in "abcdefghijkl"])


def test_meta_information_that_one_arm_has(model: Any) -> None:
    def p(s: Any, q: str) -> None:
        s += q + sgl.select("c", ["x", "y"])
        if s["c"] == "x":
            s += sgl.gen("a", max_tokens=1)
        else:
            s["a"] = "set"
        found = s.get_meta_info("a")
        s += "none" if found is None else str(found["completion_tokens"])

    assert len({text[2:3] == "n" for text, *_ in same(p, model, [(c,) for c in "abcdefgh"])}) == 2


def test_numbers_that_arms_give(model: Any) -> None:
    def p(s: Any, q: str) -> Any:
        s += q + sgl.select("c", ["x", "y"])
        if s["c"] == "x":
            v, w = 0.0, 1
        else:
            v, w = -0.0, True
        s += f"{v}{w}"
        return v, w

    assert len({got[2] for got in same(p, model, [(c,) for c in "abcdefgh"])}) == 2


# -- containers that host calls have -----------------------------------------------------------
def test_lists_that_were_handed_over(model: Any) -> None:
    def p(s: Any, q: str) -> None:
        words, first = [q, "x"], [1]
        log(words)
        s += q + sgl.gen("a")
        s += str(len(first + first + words)) + str(len(words * 2))

    same(p, model, [("a",), ("bc",)])


def test_sets_that_were_handed_over(model: Any) -> None:
    def p(s: Any, q: str) -> None:
        seen = {q, "x"}
        log(seen)
        s += q + sgl.gen("a")
        s += str(sorted({"x", "y"} - seen)) + str(sorted(seen & {"x"})) + str(len(seen ^ {"y"}))

    same(p, model, [("a",), ("bc",)])


# -- the order of things -----------------------------------------------------------------------
def test_the_order_in_which_parts_are_evaluated(model: Any) -> None:
    def p(s: Any, q: str) -> Any:
        s += q + sgl.gen("a")
        table: dict[Any, Any] = {}
        items = [2, 0, 1]
        table[log("k", s["a"])] = log("v", 1)
        items[log(1, "i")] = log(3, "w")
        items[log(2, "j")] += log(4, "x")
        i = 0
        items[i], i = i, items[i]
        i, items[i] = 1, 9
        (items[0], *rest), table["y"] = log((5, 6, 7)), log("z")
        return table, items, i, rest

    same(p, model, [("a",), ("bc",)])


# -- variables that a `try` leaves unbound -----------------------------------------------------
UNBOUND: list[Callable[..., Any]] = []


def unbound(fn: Callable[..., Any]) -> Callable[..., Any]:
    UNBOUND.append(fn)
    return fn


@unbound
def returned(s: Any, q: str) -> Any:
    s += q + sgl.gen("a")
    try:
        v = int(log(q))
    except ValueError:
        log("bad")
    log("before")
    return v


@unbound
def put_into_a_list(s: Any, q: str) -> Any:
    s += q + sgl.gen("a")
    try:
        v = int(log(q))
    except ValueError:
        log("bad")
    out = [1, v]
    log("made")
    s["v"] = out


@unbound
def bound_by_a_second_try(s: Any, q: str) -> Any:
    s += q + sgl.gen("a")
    try:
        v = int(log(q))
    except ValueError:
        log("bad")
    try:
        v = float(log("7"))
    except ValueError:
        v = 0.0
    s += str(v)


@unbound
def never_used(s: Any, q: str) -> Any:
    s += q + sgl.gen("a")
    try:
        v = int(log(q))  # noqa: F841
    except ValueError:
        log("bad")
    s += "end"


@unbound
def the_name_of_the_error(s: Any, q: str) -> Any:
    e = "before"
    s += q + sgl.gen("a")
    try:
        v, e = int(log(q)), "fine"
    except ValueError as e:  # noqa: F841
        v = -1
    s += str(v)
    return e


@unbound
def deleted_inside(s: Any, q: str) -> Any:
    x = q
    s += q + sgl.gen("a")
    try:
        n = int(log(q))
        del x
    except ValueError:
        n = 0
    s += str(n)
    return x  # noqa: F821


@pytest.mark.parametrize("fn", UNBOUND, ids=lambda fn: fn.__name__)
def test_variables_that_a_try_may_leave_unbound(fn: Callable[..., Any], model: Any) -> None:
    same(fn, model, [("5",), ("x",), ("1",)])
