"""Prefixes prefilled while the program waits: what it changes, and what it does not."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc.runtime.hash_model import HashRunner

RULES = "Rule: answer briefly, cite what you found, and never guess. " * 6


def slow(question: str) -> str:
    time.sleep(0.2)
    return question.upper()


def look_up(question: str) -> str:
    return f"<{len(question)}>"


def fail(question: str) -> str:
    raise KeyError(question)


def ask(s: Any, q: Any, tool: Any) -> None:
    found = tool(q)
    s += f"{RULES}Question: {q}\nFound: {found}\n"
    s += sgl.gen("answer", max_tokens=5)


def agent(s: Any, q: Any) -> None:
    """Two tools, and a gen between them."""
    s += "Question: " + q + " " + RULES
    s += f"First: {look_up(q)}\n" + sgl.gen("plan", max_tokens=6, stop="\n")
    s += f"\nSecond: {RULES}{look_up(s['plan'])}\n" + sgl.gen("answer", max_tokens=6)


class Slow(sgl.HashModel):  # type: ignore[misc]
    """A model that takes a time for each token of a step; notes when it was asked for what."""

    def __init__(self, seconds: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[str] = []
        runner: HashRunner = self.core.runner  # type: ignore[assignment]
        forward = runner.forward

        def slowly(batch: Any) -> Any:
            time.sleep(seconds * len(batch.ids))
            return forward(batch)

        runner.forward = slowly  # type: ignore[method-assign]

    def submit(self, requests: Any) -> None:
        self.asked += [r.kind for r in requests]
        super().submit(requests)


def test_the_prefix_is_there_when_the_call_returns() -> None:
    seen: list[tuple[int, int]] = []

    def tool(question: str) -> str:
        for _ in range(100):
            time.sleep(0.01)
            if model.stats().kv_cached:
                break
        seen.append((model.stats().prefill_tokens, model.stats().kv_cached))
        return "nothing"

    with Slow() as model:
        program = sgl.program(ask)
        state = program.run(q="Who?", tool=tool, backend=model, temperature=0)
        state.sync()
        known = len(RULES + "Question: Who?\nFound: ")
        assert seen[0][0] == seen[0][1] >= known - 8  # but for the text held back
        stats = model.stats()
        assert model.asked == ["prefill", "generate"] and stats.requests == 1
        assert stats.kv_in_use == 0
        prompt = len(state.text()) - len(state["answer"])
        assert stats.prefill_tokens == prompt


def test_a_slow_call_hides_the_prefill() -> None:
    """400 tokens of 0.5 ms beside a call of 200 ms."""
    times: dict[tuple[str, ...], float] = {}
    texts = []
    for without in (("early-prefill",), ()):
        with Slow(0.0005) as model:
            program = sgl.program(ask, without=without)
            program.compile(q="Who?", tool=slow, backend=model)
            program.run(q="x", tool=look_up, backend=model, temperature=0).sync()
            model.flush_cache()
            start = time.perf_counter()
            state = program.run(q="Who?", tool=slow, backend=model, temperature=0)
            texts.append(state.text())
            times[without] = time.perf_counter() - start
    assert texts[0] == texts[1]
    assert times["early-prefill",] - times[()] > 0.1


@settings(max_examples=12, deadline=None)
@given(kv=st.integers(900, 2500), chunk=st.sampled_from([16, 256]),
       policy=st.sampled_from(["planned", "lpm", "vllm-apc"]),
       words=st.lists(st.sampled_from(["who", "what is it", "where", ""]), min_size=1,
                      max_size=6))
def test_it_changes_no_text(kv: int, chunk: int, policy: str, words: list[str]) -> None:
    rows = [(w,) for w in words]
    with sgl.HashModel(kv_tokens=kv, max_batch_tokens=chunk, policy=policy) as model:
        program = sgl.program(agent)
        compiled = program.run_batch(rows, backend=model, seed=3, temperature=1)
        eager = program.run_batch(rows, backend=model, seed=3, temperature=1, mode="eager")
        assert [s.token_ids() for s in compiled] == [s.token_ids() for s in eager]
        assert model.stats().kv_in_use == 0


@pytest.mark.parametrize("rows", [1, 8])
def test_nothing_is_computed_that_would_not_be(rows: int) -> None:
    questions = [(f"number {i}?",) for i in range(rows)]
    with sgl.HashModel() as model, model.record() as run:
        states = sgl.program(agent).run_batch(questions, backend=model, seed=1)
        assert all(s.error() is None for s in states)
        assert model.stats().prefill_tokens == run.lower_bound().prefill


def test_what_fails_leaves_nothing_behind() -> None:
    with Slow(0.001) as model:
        program = sgl.program(ask)
        with pytest.raises(KeyError):
            program.run(q="Who?", tool=fail, backend=model).sync()
        states = program.run_batch([{"q": "Who?", "tool": fail}] * 3, backend=model)
        assert all(isinstance(s.error(), KeyError) for s in states)
        model.core.wait_idle(5)
        assert model.stats().kv_in_use == 0
        model.core.check()
