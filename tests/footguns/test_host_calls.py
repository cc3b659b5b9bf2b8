"""Python that is not traced: each call is made once, in its order, and fails where eager does."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl
from tests.footguns.both_modes import outcome, same

CALLS: list[Any] = []


def tool(x: Any) -> str:
    CALLS.append(x)
    return f"<{x}>"


def test_unknown_calls_run_once_and_never_while_tracing(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "q" + q + sgl.gen("a", max_tokens=3)
        s += tool(s["a"])
        s += sgl.gen("b", max_tokens=3)

    CALLS.clear()
    p.compile("x")
    p.compile()
    assert CALLS == []
    state = p.run("x", backend=model, mode="eager", seed=1)
    wanted = state.text()
    assert CALLS == [state["a"]]
    with warnings.catch_warnings(record=True):
        got = p.run("x", backend=model, seed=1)
    assert got.text() == wanted and CALLS == [state["a"]] * 2
    CALLS.clear()
    with warnings.catch_warnings(record=True):
        rows = p.run_batch([(str(i),) for i in range(5)], backend=model, seed=1)
    assert sorted(CALLS) == sorted(r["a"] for r in rows) and len(CALLS) == 5


def test_randomness_and_time_break(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += str(random.random())
        s += sgl.gen("a", max_tokens=2)

    assert p.compile().graph_breaks == 0
    with warnings.catch_warnings(record=True):
        texts = {p.run(backend=model, seed=1).text() for _ in range(3)}
    assert len(texts) == 3


def test_errors_in_host_calls(model: Any) -> None:
    calls: list[Any] = []

    def fails(x: Any) -> str:
        calls.append(x)
        if len(x) > 2:
            raise ValueError("too long")
        return "ok"

    def after(x: Any) -> str:
        calls.append("after")
        return x

    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "x" + q + sgl.gen("a", max_tokens=3, ignore_eos=True)
        s += fails(q) + sgl.gen("b", max_tokens=2)
        s += after("z")

    for mode in ("eager", "compiled"):
        calls.clear()
        with pytest.raises(ValueError, match="too long"):
            p.run("long", backend=model, mode=mode, seed=1)
        assert calls == ["long"]
        calls.clear()
        rows = p.run_batch([("a",), ("long",), ("b",)], backend=model, mode=mode, seed=1)
        assert [type(r.error()) for r in rows] == [type(None), ValueError, type(None)]
        assert rows[1]["a"] and rows[0]["b"] is not None
        assert sorted(calls) == ["a", "after", "after", "b", "long"]


def test_a_failed_read_stops_the_calls_behind_it(model: Any) -> None:
    calls: list[Any] = []

    def note(x: Any) -> str:
        calls.append(x)
        return "n"

    @sgl.program
    def p(s: Any) -> None:
        s += "x" + note("first")
        f = s.fork(1)[0]
        f += "y" * 100_000 + sgl.gen("a", max_tokens=3)  # longer than the context
        s += note("second")
        s += f["a"]
        s += note("never")

    for mode in ("eager", "compiled"):
        calls.clear()
        with pytest.raises(sgl.SglcError, match="SGLC501"):
            p.run(backend=model, mode=mode)
        assert calls == ["first", "second"]


def test_iterators_next_and_lazy_results(model: Any) -> None:
    log: list[Any] = []

    def numbers() -> Iterator[str]:
        for i in range(3):
            log.append(i)
            yield str(i)

    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        for n in numbers():
            s += n + sgl.gen("a", max_tokens=1)
            log.append("body")
        it = iter(["p", "q"])
        s += next(it) + next(it)

    runs = []
    for mode in ("eager", "compiled"):
        log.clear()
        runs.append((p.run(backend=model, mode=mode, seed=2).text(), list(log)))
    assert runs[0] == runs[1] and runs[0][1] == [0, "body", 1, "body", 2, "body"]


def test_retry_until_valid(model: Any) -> None:
    tried: list[Any] = []

    def valid(text: Any) -> bool:
        tried.append(text)
        return len(set(text)) > 4

    @sgl.program
    def p(s: Any) -> Any:
        s += "q"
        for i in range(5):
            f = s.fork(1)[0]
            f += f"try {i}:" + sgl.gen("t", max_tokens=6)
            if valid(f["t"]):
                s += f["t"]
                return i
        return None

    runs = []
    for mode in ("eager", "compiled"):
        tried.clear()
        state = p.run(backend=model, mode=mode, seed=3)
        runs.append((state.text(), state.ret_value, list(tried)))
    assert runs[0] == runs[1]
    assert p.compile().graph_breaks == 0


def test_try_around_host_calls(model: Any) -> None:
    seen: list[Any] = []
    limit = 1

    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.gen("j", regex=r'\{"k": [0-3]\}|[a-c]{3}')
        value = "none"
        try:
            seen.append("in")
            data = json.loads(s["j"])
            value = data["k"]
            ok = value > limit
        except ValueError as e:
            seen.append(type(e).__name__)
            ok = False
        finally:
            seen.append("out")
        if ok:
            s += f"big {value}" + sgl.gen("a", max_tokens=2)
        else:
            s += f"small {value}"
        return value

    runs = []
    for mode in ("eager", "compiled"):
        seen.clear()
        got = [outcome(p.run(q, backend=model, mode=mode, seed=i))
               for i, q in enumerate("abcdefgh")]
        runs.append((got, list(seen)))
    assert runs[0] == runs[1]
    assert {"JSONDecodeError"} < set(runs[0][1])
    assert p.compile("x").graph_breaks == 0


def test_a_state_inside_try_runs_eagerly(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        try:
            s += sgl.gen("a", max_tokens=2) + tool(1)
            raise KeyError("x")
        except KeyError:
            s += "caught"

    same(p, model, (), whole=False)
