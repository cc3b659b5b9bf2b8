"""What may be read of a run whose body is not through, or that failed: nothing early, no hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl

MODES = ("eager", "compiled")


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


def waiting(gate: threading.Event, then: Any = None) -> Any:
    """A program that waits for `gate` before its last gen."""
    def body(s: Any, q: str) -> str:
        s += q + sgl.gen("a", max_tokens=3)
        first = s["a"]
        gate.wait(20)
        s["a"] = first + "!"
        if then is not None:
            raise then
        s += s["a"] + sgl.gen("b", max_tokens=3)
        return first

    return sgl.program(body)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["variable", "later variable", "text", "ids", "meta", "names",
                                  "error", "value", "messages"])
def test_a_read_waits_for_the_body(what: str, mode: str, model: Any) -> None:
    read = {"variable": lambda s: s["a"], "later variable": lambda s: s["b"],
            "text": lambda s: s.text(), "ids": lambda s: s.token_ids(),
            "meta": lambda s: s.get_meta_info("b")["finish_reason"],
            "names": lambda s: s.variable_names(), "error": lambda s: s.error(),
            "value": lambda s: s.ret_value, "messages": lambda s: s.messages()}[what]
    gate = threading.Event()
    gate.set()
    program = waiting(gate)
    wanted = read(program.run("x", backend=model, mode=mode, seed=2))
    gate.clear()
    state = program.run("x", backend=model, mode=mode, seed=2, stream=True)
    threading.Timer(0.05, gate.set).start()
    assert read(state) == wanted
    gate.clear()
    state = program.run("x", backend=model, mode=mode, seed=2, stream=True)
    with pytest.raises(TimeoutError):
        state.get_var("b", timeout=0.01)
    gate.set()
    assert "".join(state.text_iter()) == state.text()


@pytest.mark.parametrize("mode", MODES)
def test_an_error_behind_the_stream_is_not_missed(mode: str, model: Any) -> None:
    gate = threading.Event()
    state = waiting(gate, ValueError("late")).run("x", backend=model, mode=mode, stream=True)
    threading.Timer(0.05, gate.set).start()
    assert isinstance(state.error(), ValueError)
    for read in (state.sync, lambda: state["b"], lambda: state.ret_value,
                 lambda: state.get_meta_info("b")):
        with pytest.raises(ValueError, match="late"):
            read()


@pytest.mark.parametrize("mode", MODES)
def test_a_streamed_state_goes_on(mode: str, model: Any) -> None:
    gate = threading.Event()
    gate.set()
    program = waiting(gate)
    texts = []
    for stream in (False, True):
        state = program.run("x", backend=model, mode=mode, seed=2, stream=stream)
        state += "more" + sgl.gen("c", max_tokens=3)
        state["d"] = state["c"] + "."
        texts.append((state.text(), state["d"], state.fork(1)[0]["c"]))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_gen_leaves_no_variable_to_wait_for(mode: str, model: Any) -> None:
    def body(s: Any, regex: str) -> None:
        s += "x" + sgl.gen("a", regex=regex, max_tokens=3)

    program = sgl.program(body)
    rows = [("[ab]+",), (r"(a)\1",), ("[cd]+",)]
    states = program.run_batch(rows, backend=model, mode=mode, seed=1)
    assert [s.error() is None for s in states] == [True, False, True]
    assert states[0]["a"] and set(states[2]["a"]) <= set("cd")
    streamed = program.run(r"(a)\1", backend=model, mode="eager", stream=True)
    for state in (states[1], streamed):
        with pytest.raises(sgl.SglcError, match="SGLC006"):
            state.get_var("a", timeout=5)
        with pytest.raises(sgl.SglcError, match="SGLC006"):
            state.sync()


def test_a_stream_of_a_program_whose_rest_cannot_be_traced(model: Any) -> None:
    def body(s: Any, q: str) -> None:
        s += q + sgl.gen("a", max_tokens=4, ignore_eos=True)
        for word in s["a"].split("b"):
            s += "-" + word[:1]
        with threading.Lock():
            s += sgl.gen("b", max_tokens=3)

    program = sgl.program(body)
    with pytest.warns(sgl.SglcWarning):
        wanted = program.run("x", backend=model, seed=3).text()
    state = program.run("x", backend=model, seed=3, stream=True)
    assert "".join(state.text_iter()) == wanted == state.text()
    assert "".join(state.text_iter("b")) == state["b"]


@pytest.mark.parametrize("mode", MODES)
def test_what_came_before_an_error_is_kept(mode: str, model: Any) -> None:
    """Its stream ends with the error, behind all that came before; complete variables are read."""
    def body(s: Any, q: str) -> str:
        s += q + sgl.gen("a", max_tokens=3, ignore_eos=True)
        if q == "bad":
            raise ValueError("bad row")
        s += "." + sgl.gen("b", max_tokens=3)
        return "done"

    program = sgl.program(body)
    row = program.run_batch([("bad",)], backend=model, mode=mode, seed=4)[0]
    state = program.run("bad", backend=model, mode=mode, seed=4, stream=True)
    pieces: list[str] = []
    with pytest.raises(ValueError, match="bad row"):
        pieces.extend(state.text_iter())
    assert len(row["a"]) and "".join(state.text_iter("a")) == row["a"] == state["a"]
    assert row.text() == state.text() == "bad" + row["a"]
    for read in (lambda s: s.ret_value, lambda s: s.sync(), lambda s: s.get_meta_info("b"),
                 lambda s: list(s.text_iter("b"))):
        for failed in (row, state):
            with pytest.raises(ValueError, match="bad row"):
                read(failed)


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_has_all_text_before_the_error(mode: str, model: Any) -> None:
    def body(s: Any, q: str) -> None:
        s += q + sgl.gen("a", max_tokens=3, ignore_eos=True)
        raise ValueError(q)

    state = sgl.program(body).run("x", backend=model, mode=mode, seed=4, stream=True)
    got = ""
    with pytest.raises(ValueError, match="x"):
        for piece in state.text_iter():
            got += piece
    assert got == state.text() != "x"
