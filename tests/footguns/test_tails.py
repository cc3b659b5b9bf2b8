"""What comes after a break: states of forks go where Python's functions take them; what cannot be
traced ends the run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sglc as sgl
from sglc.errors import TraceError

CALLS: list[str] = []


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


# -- states of forks, behind a host call and a break ---------------------------------------------
Use = Callable[[Any, Any], Any]
USES: list[Use] = []


def use(fn: Use) -> Use:
    USES.append(fn)
    return fn


def score(state: Any) -> str:
    return str(state["t"])


@use
def sorted_by_a_key(s: Any, forks: Any) -> Any:
    return [x["t"] for x in sorted(forks, key=lambda x: (len(x["t"]), x["t"]), reverse=True)]


@use
def sorted_tuples(s: Any, forks: Any) -> Any:
    best = sorted([(x["t"], i, x) for i, x in enumerate(forks)])
    return best[0][2].text() + best[-1][2]["t"]


@use
def sorted_tuples_by_a_key(s: Any, forks: Any) -> Any:
    best = sorted([(x["t"], x) for x in forks], key=lambda pair: pair[0], reverse=True)
    return best[0][1].text() + best[1][0]


@use
def sorted_zip(s: Any, forks: Any) -> Any:
    texts = [look_up(x["t"]) for x in forks]
    best = sorted(zip(texts, forks, strict=True), key=operator.itemgetter(0))
    return best[1][1].text()


@use
def sorted_enumerate(s: Any, forks: Any) -> Any:
    return [(i, x["t"]) for i, x in sorted(enumerate(forks), key=lambda p: score(p[1]))]


@use
def best_by_an_item(s: Any, forks: Any) -> Any:
    return max(forks, key=operator.itemgetter("t"), default=None).text()


@use
def best_of_a_generator(s: Any, forks: Any) -> Any:
    return min((x for x in forks if x["t"] != "never"), key=lambda x: look_up(x["t"]))["t"]


@use
def map_and_filter(s: Any, forks: Any) -> Any:
    kept = filter(lambda x: x["t"] > "A", forks)
    return [*map(score, forks)], [x["t"] for x in kept], next(map(score, forks))


@use
def map_with_two(s: Any, forks: Any) -> Any:
    return ",".join(map(lambda x, y: x["t"] + y, forks, "uvw"))


@use
def reduced(s: Any, forks: Any) -> Any:
    return functools.reduce(lambda text, x: text + x["t"], forks, "")


@use
def chained(s: Any, forks: Any) -> Any:
    return [x["a"] for x in itertools.chain(forks, [s])]


@use
def by_their_texts(s: Any, forks: Any) -> Any:
    table = {x["t"]: x for x in forks}
    table[forks[0]["t"]] = forks[1]
    return [table[k].text() for k in sorted(table)]


@use
def where_the_best_text_is(s: Any, forks: Any) -> Any:
    texts = [x["t"] for x in forks]
    best = forks[texts.index(max(texts))]
    return best.text(), texts.count(best["t"])


@use
def token_ids(s: Any, forks: Any) -> Any:
    return forks[1].token_ids(), len(s.token_ids()), bool(forks)


@pytest.mark.parametrize("fn", USES, ids=lambda fn: fn.__name__)
def test_states_of_forks(fn: Use, model: Any) -> None:
    def p(s: Any, q: str) -> None:
        s += q + sgl.gen("a", max_tokens=3)
        look_up(q)
        for word in s["a"].split("%"):
            s += word
        forks = s.fork(3)
        for i, x in enumerate(forks):
            x += f"{i}" + sgl.gen("t", max_tokens=2)
        s += str(fn(s, forks)) + sgl.gen("b", max_tokens=1)

    program = sgl.program(p)
    found = []
    for mode in ("eager", "compiled"):
        CALLS.clear()
        states = program.run_batch([("hey",), ("x",)], backend=model, seed=1, mode=mode)
        assert [s.error() for s in states] == [None, None]
        found.append(([(s.text(), s.token_ids()) for s in states], sorted(CALLS)))
    assert found[0] == found[1]


@sgl.program
def one_way(s: Any, q: str, never: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    look_up(q)
    for word in s["a"].split("%"):
        s += word
    s += sgl.gen("b", max_tokens=2)
    if never in s["b"]:
        with somewhere():
            s += "inside"
    elif s["b"] == "never":
        s += {"a": "b"}[q]
    s += sgl.gen("c", max_tokens=2)


def test_a_way_that_is_not_taken_need_not_be_traced(model: Any) -> None:
    """A run that has made host calls cannot begin again for it."""
    texts = []
    for mode in ("eager", "compiled"):
        CALLS.clear()
        (state,) = one_way.run_batch([("hey", "never")], backend=model, seed=1, mode=mode)
        texts.append((state.text(), list(CALLS)))
    assert texts[0] == texts[1]
    (state,) = one_way.run_batch([("hey", "")], backend=model, seed=1)
    assert isinstance(state.error(), TraceError) and "with block" in str(state.error())
    assert model.stats().kv_in_use == 0


def test_states_that_python_takes_away(model: Any) -> None:
    """What the tracer cannot follow is said, also where the run cannot begin again."""
    def p(s: Any, q: str) -> None:
        s += q + look_up("x")
        forks = s.fork(2)
        forks += sgl.gen("t", max_tokens=2)
        s += random.choice(list(forks))["t"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sgl.SglcWarning, match="a prompt state is handed to Python"):
            sgl.program(p).run("x", backend=model)
