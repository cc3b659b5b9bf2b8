"""The ways to run a program: batches, streams, async, seeds, nesting, interrupts."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl

MODES = ("eager", "compiled")


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


@sgl.program
def two(s: Any, q: Any) -> Any:
    s += "Q: " + q + "\nA:" + sgl.gen("a", max_tokens=12, ignore_eos=True)
    s += "\nB:" + sgl.gen("b", max_tokens=7, ignore_eos=True, temperature=0) + "."
    return s["a"]


@pytest.mark.parametrize("mode", MODES)
def test_streams_add_up(model: Any, mode: str) -> None:
    plain = two.run("x", backend=model, mode=mode, seed=5)
    state = two.run("x", backend=model, mode=mode, seed=5, stream=True)
    pieces = list(state.text_iter())
    assert "".join(pieces) == plain.text() == state.text() and len(pieces) > 4
    assert list(two.run("x", backend=model, mode=mode, seed=5).text_iter()) == [plain.text()]
    state = two.run("x", backend=model, mode=mode, seed=5, stream=True)
    pieces = list(state.text_iter("b"))
    assert "".join(pieces) == plain["b"] and len(pieces) > 2
    assert state["a"] == plain["a"] == state.ret_value
    with pytest.raises(KeyError):
        list(two.run("x", backend=model, mode=mode, stream=True).text_iter("zz"))


@pytest.mark.parametrize("mode", MODES)
def test_streams_through_branches_forks_and_stops(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any, q: Any) -> None:
        s += "Q" + q + sgl.gen("a", max_tokens=9, stop=["e", "th"], ignore_eos=True)
        forks = s.fork(2)
        forks += sgl.gen("f", max_tokens=5)
        forks.join("concate_and_append")
        s += sgl.select("c", ["one", "two"])
        if s["c"] == "one":
            s += "!" + sgl.gen("d", max_tokens=5, ignore_eos=True)
        else:
            s += "?" + sgl.gen("d", max_tokens=6, ignore_eos=True)
        s += "end"

    for q in "abcdef":
        plain = program.run(q, backend=model, mode=mode, seed=2)
        state = program.run(q, backend=model, mode=mode, seed=2, stream=True)
        assert "".join(state.text_iter()) == plain.text()
        assert "".join(state.text_iter("d")) == plain["d"]
        assert "".join(state.text_iter("c")) == plain["c"]


@pytest.mark.parametrize("mode", MODES)
def test_an_error_ends_the_stream(mode: str) -> None:
    with sgl.HashModel(context_length=32) as model:
        state = two.run("x" * 50, backend=model, mode=mode, stream=True)
        with pytest.raises(sgl.SglcError, match="SGLC501"):
            list(state.text_iter())
        assert state.error() is not None


@pytest.mark.parametrize("mode", MODES)
def test_async(model: Any, mode: str) -> None:
    async def main() -> None:
        plain = two.run("x", backend=model, mode=mode, seed=5)  # run() inside a running loop
        states = await asyncio.gather(*(two.arun("x", backend=model, mode=mode, seed=5)
                                        for _ in range(3)))
        assert [s.text() for s in states] == [plain.text()] * 3
        state = two.run("x", backend=model, mode=mode, seed=5, stream=True)
        pieces = [p async for p in state.text_async_iter()]
        assert "".join(pieces) == plain.text() and len(pieces) > 1
        state = two.run("x", backend=model, mode=mode, seed=5, stream=True)
        pairs = [p async for p in state.text_async_iter("a", return_meta_data=True)]
        assert "".join(p for p, _ in pairs) == plain["a"]

    asyncio.run(main())


@pytest.mark.parametrize("mode", MODES)
def test_batches(model: Any, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"q": str(i)} for i in range(20)]
    states = two.run_batch(rows, backend=model, mode=mode, seed=9, progress_bar=True)
    assert "20" in capsys.readouterr().err
    assert [f"Q: {i}\n" in s.text() for i, s in enumerate(states)] == [True] * 20
    texts = [s.text() for s in states]
    assert len({s["a"] for s in states}) == 20
    tuples = two.run_batch([(str(i),) for i in range(20)], backend=model, mode=mode, seed=9,
                           num_threads=3)
    assert [s.text() for s in tuples] == texts
    lazy = two.run_batch(rows, backend=model, mode=mode, seed=9, generator_style=True)
    assert isinstance(lazy, types.GeneratorType)
    assert [s.text() for s in lazy] == texts
    # Row 0 of a batch is what run() with that seed gives.
    assert two.run("0", backend=model, mode=mode, seed=9).text() == texts[0]


def test_generator_style_keeps_row_numbers(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglc.lang import program

    rows = [{"q": str(i)} for i in range(7)]
    whole = [s.text() for s in two.run_batch(rows, backend=model, seed=9)]
    monkeypatch.setattr(program, "GENERATOR_CHUNK", 3)
    for mode in MODES:
        lazy = two.run_batch(rows, backend=model, seed=9, generator_style=True, mode=mode)
        assert [s.text() for s in lazy] == whole


@pytest.mark.parametrize("mode", MODES)
def test_seeds(model: Any, mode: str) -> None:
    fresh = two.run("x", backend=model, mode=mode)
    again = two.run("x", backend=model, mode=mode, seed=fresh.seed)
    assert fresh.text() == again.text()
    other = two.run("x", backend=model, mode=mode)
    assert other.seed != fresh.seed

    @sgl.program
    def seeded(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=9, seed=4) + "|"

    assert seeded.run(backend=model, mode=mode).text() == seeded.run(
        backend=model, mode=mode).text()


@pytest.mark.parametrize("mode", MODES)
def test_nested_programs(model: Any, mode: str) -> None:
    @sgl.program
    def inner(s: Any, x: Any) -> Any:
        s += "inner " + x + sgl.gen("p", max_tokens=5)
        return s["p"] + "!"

    @sgl.program
    def outer(s: Any, x: Any) -> None:
        s += "outer " + x + sgl.gen("p", max_tokens=5)
        first, second = inner(x=s["p"]), inner("y")
        s += "1." + first["p"] + "2." + second["p"] + sgl.gen("q", max_tokens=3)

    states = [outer.run("t", backend=model, mode=m, seed=3) for m in MODES]
    assert states[0].text() == states[1].text()
    assert outer.compile(x="t").graph_breaks == 0


@pytest.mark.parametrize("mode", MODES)
def test_bind_and_names_of_options(model: Any, mode: str) -> None:
    bound = two.bind(q="bound")
    assert "Q: bound" in bound.run(backend=model, mode=mode).text()
    assert "Q: bound" in bound.run_batch([{}, {}], backend=model, mode=mode)[1].text()
    with pytest.raises(TypeError):
        two.bind(nothing=1)

    @sgl.program
    def named(s: Any, temperature: Any, stop: Any = "end") -> None:
        s += "t=" + temperature + stop + sgl.gen("a", max_tokens=2)

    assert named.run(temperature="hot", backend=model, mode=mode).text().startswith("t=hotend")


@pytest.mark.parametrize("mode", MODES)
def test_meta_info(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "prompt" + sgl.gen("a", max_tokens=5, ignore_eos=True, return_logprob=True,
                                top_logprobs_num=2, logprob_start_len=2,
                                return_text_in_logprobs=True)
        s += sgl.gen("b", max_tokens=5, n=3, temperature=1.0)
        s += sgl.select("c", ["yes", "no"])

    state = program.run(backend=model, mode=mode, seed=1)
    meta = state.get_meta_info("a")
    assert meta["prompt_tokens"] == 6 and meta["completion_tokens"] == 5
    assert meta["finish_reason"] == {"type": "length", "length": 5}
    out = meta["output_token_logprobs"]
    assert len(out) == 5 and all(lp <= 0 for lp, _, _ in out)
    assert model.tokenizer.decode([t for _, t, _ in out]) == state["a"]
    assert [t for _, t, _ in meta["input_token_logprobs"]] == list(b"prompt")[2:]
    assert all(len(step) == 2 for step in meta["output_top_logprobs"])
    assert isinstance(state["b"], list) and len(state["b"]) == 3
    assert len(state.get_meta_info("b")) == 3
    scores = state.get_meta_info("c")
    assert len(scores["normalized_prompt_logprobs"]) == 2
    assert state["c"] == ["yes", "no"][scores["normalized_prompt_logprobs"][0]
                                       < scores["normalized_prompt_logprobs"][1]]


def test_eager_and_compiled_agree_on_meta(model: Any) -> None:
    metas = []
    for mode in MODES:
        state = two.run("m", backend=model, mode=mode, seed=5, return_logprob=True)
        meta = dict(state.get_meta_info("b"))
        meta.pop("cached_tokens")
        metas.append(meta)
    assert metas[0] == metas[1]


@pytest.mark.parametrize("mode", MODES)
def test_going_on_after_a_run(model: Any, mode: str) -> None:
    state = two.run("x", backend=model, mode=mode, seed=5)
    before = state.text()
    state += " more" + sgl.gen("c", max_tokens=3)
    assert state.text().startswith(before + " more") and state["c"] in state.text()
    assert state["a"] == state.ret_value


def test_a_new_definition_is_traced_anew(model: Any) -> None:
    def define(word: str) -> Any:
        @sgl.program
        def program(s: Any) -> None:
            s += word + sgl.gen("a", max_tokens=2)

        return program

    assert define("one").run(backend=model).text().startswith("one")
    assert define("two").run(backend=model).text().startswith("two")


@pytest.mark.parametrize("mode", MODES)
def test_interrupt_keeps_what_is_done(mode: str) -> None:
    @sgl.program
    def program(s: Any, n: int) -> None:
        s += "x" + sgl.gen("a", max_tokens=3, ignore_eos=True)
        if n:
            s += "y" + sgl.gen("b", max_tokens=30_000, ignore_eos=True)

    with sgl.HashModel(kv_tokens=1 << 20) as model:
        timer = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        try:
            states = program.run_batch([(i % 2,) for i in range(12)], backend=model, mode=mode)
            stopped = time.perf_counter()
        finally:
            timer.cancel()
        assert len(states) == 12
        for i, state in enumerate(states):
            if i % 2 == 0:
                assert len(state["a"]) > 0 and state.error() is None
            else:
                assert isinstance(state.error(), sgl.Cancelled)
        assert time.perf_counter() - stopped < 1.0
        assert isinstance(two.run("x", backend=model, mode=mode)["a"], str)
        assert model.core.wait_idle(10)
        model.core.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore::sglc.errors.SglcWarning")
def test_async_bodies_run(model: Any, mode: str) -> None:
    async def fetch(x: Any) -> str:
        await asyncio.sleep(0)
        return f"<{x}>"

    @sgl.program
    async def program(s: Any, q: Any) -> Any:
        s += "x" + await fetch(q) + sgl.gen("a", max_tokens=3)
        return await fetch(s["a"])

    state = program.run("q", backend=model, mode=mode, seed=1)
    assert state.text().startswith("x<q>") and state.ret_value == f"<{state['a']}>"

    async def inside() -> str:
        return program.run("q", backend=model, mode=mode, seed=1).text()

    assert asyncio.run(inside()) == state.text()
    assert program.compile("q").graph_breaks == 0


def test_going_on_is_the_same_in_both_modes(model: Any) -> None:
    texts = []
    for mode in MODES:
        state = two.run("x", backend=model, mode=mode, seed=5)
        state += " more" + sgl.gen("c", max_tokens=9, ignore_eos=True, temperature=1.0)
        forks = state.fork(2)
        forks += sgl.gen("d", max_tokens=5, ignore_eos=True, temperature=1.0)
        forks.join()
        row = two.run_batch([("y",), ("z",)], backend=model, mode=mode, seed=5)[1]
        row += sgl.gen("c", max_tokens=9, ignore_eos=True, temperature=1.0)
        texts.append((state.text(), state["d"], row.text()))
    assert texts[0] == texts[1]
