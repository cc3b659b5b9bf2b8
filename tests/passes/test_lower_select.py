"""Selects as tries: one request, one step, and the decision of scoring one by one."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc.runtime.calls import choose
from sglc.runtime.choice_ids import ChoiceIds
from sglc.runtime.request import Request, Result
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.prompt import Prompt
from sglc.tokens.small import small_bpe

TOKENIZERS = (ByteTokenizer(), small_bpe())
WORDS = ("red", "green", "blue", "one", "two", "old", "new", "sea", "sky", "sun")
texts = st.text("ab \ne", max_size=60)


def labels(n: int) -> list[str]:
    """So many different choices, with common beginnings."""
    draw = random.Random(n)
    found: dict[str, None] = {}
    while len(found) < n:
        found[" ".join(draw.choices(WORDS, k=draw.randint(1, 4)))] = None
    return list(found)




def scored_alone(model: Any, prompt: str, choices: list[str]) -> tuple[str, dict[str, Any]]:
    """The choice, each scored by a request of its own, one after the other."""
    tok = model.tokenizer
    base = Prompt.empty(tok).append(prompt)
    rows = [base.append(c).token_ids() for c in choices]
    start = next(i for i in range(len(rows[0])) if len({tuple(r[:i + 1]) for r in rows}) > 1
                 or rows[0][:i + 1] != base.token_ids()[:i + 1])
    scores = []
    for row in rows:
        results: list[Result] = []
        model.submit([Request("score", row, results.append, score_from=start)])
        model.core.wait_idle(30)
        scores.append(list(results[0].logprobs))
    winner, meta = choose("token_length_normalized", scores, [])
    return choices[winner], meta


@pytest.mark.parametrize("tokenizer", [None, "small"])
@pytest.mark.parametrize("count", [4, 57, 500])
def test_one_step_and_the_same_decision(count: int, tokenizer: str | None) -> None:
    choices = labels(count)
    with sgl.HashModel(tokenizer, max_batch_tokens=1024) as model:
        def label(s: Any, q: Any) -> None:
            s += "Question: " + q + "\nLabel: "
            s += sgl.select("label", choices=choices)

        state = sgl.program(label).run(q="who?", backend=model)
        state.sync()
        stats = model.stats()
        assert (stats.forward_passes, stats.requests) == (1, 1)
        assert stats.kv_in_use == 0
        model.core.check()
        model.flush_cache()
        won, meta = scored_alone(model, "Question: who?\nLabel: ", choices)
        assert state["label"] == won
        assert state.get_meta_info("label")["normalized_prompt_logprobs"] \
            == meta["normalized_prompt_logprobs"]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 40), kv=st.integers(170, 900), chunk=st.sampled_from([3, 20, 512]),
       policy=st.sampled_from(["planned", "lpm", "fcfs-lru", "vllm-apc"]),
       cache=st.booleans(), rows=st.integers(1, 6),
       method=st.sampled_from(["token_length_normalized", "greedy_token_selection",
                               "unconditional_likelihood_normalized"]))
def test_under_any_memory_and_policy(count: int, kv: int, chunk: int, policy: str, cache: bool,
                                     rows: int, method: str) -> None:
    choices = labels(count)

    def twice(s: Any, q: Any) -> None:
        s += "Question: " + q + "\nLabel: "
        s += sgl.select("label", choices=choices, choices_method=method)
        s += "\n" + sgl.gen("why", max_tokens=4)
        s += sgl.select("more", choices=["yes", "yet", "y", "no"], choices_method=method)

    batch = [(f"number {i % 4}",) for i in range(rows)]
    with sgl.HashModel(kv_tokens=kv, max_batch_tokens=chunk, policy=policy,
                       radix_cache=cache) as model:
        program = sgl.program(twice)
        compiled = program.run_batch(batch, backend=model, seed=3)
        eager = program.run_batch(batch, backend=model, seed=3, mode="eager")
        plain = sgl.program(twice, without=("lower-select",)).run_batch(
            batch, backend=model, seed=3)
        assert all(s.error() is None for s in compiled)
        ids = [s.token_ids() for s in compiled]
        assert ids == [s.token_ids() for s in eager] == [s.token_ids() for s in plain]
        assert model.stats().kv_in_use == 0
        model.core.check()


@settings(max_examples=60, deadline=None)
@given(tokenizer=st.sampled_from(TOKENIZERS), parts=st.lists(texts, max_size=3),
       border=st.booleans(),
       choices=st.lists(st.text("ab e\n", min_size=1, max_size=8), min_size=1, max_size=6,
                        unique=True))
def test_ids_are_those_of_the_prompt_with_each_choice(
        tokenizer: Any, parts: list[str], border: bool, choices: list[str]) -> None:
    prompt = Prompt.empty(tokenizer)
    for part in parts:
        prompt = prompt.append(part)
        if border:
            prompt = prompt.generated((97,))
    ids = ChoiceIds(tokenizer, choices)
    for _ in range(2):  # found, and remembered
        base, rows, _ = ids.behind(prompt)
        want = [prompt.append(c).token_ids() for c in choices]
        assert [base + row for row in rows] == want
        assert prompt.token_ids()[:len(base)] == base
        longer = {tuple(r[:len(base) + 1]) for r in [prompt.token_ids(), *want]}
        assert len(longer) > 1 or len(prompt.token_ids()) == len(base)


def test_what_is_known_is_there_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind constants nothing is encoded at run time."""
    def label(s: Any, n: Any) -> None:
        s += "Is it so? "
        s += sgl.select("label", choices=["yes", "no"])

    with sgl.HashModel() as model:
        program = sgl.program(label)
        program.run(n=1, backend=model).sync()
        calls: list[str] = []
        encode = type(model.tokenizer).encode
        monkeypatch.setattr(type(model.tokenizer), "encode", lambda self, text, *more: (
            calls.append(text), encode(self, text, *more))[1])
        assert program.run(n=1, backend=model)["label"] in ("yes", "no")
        assert calls == []


def test_a_choice_too_many() -> None:
    """One choice that does not fit is the error of the select."""
    with sgl.HashModel(context_length=40) as model:
        results: list[Result] = []
        base = array("q", range(30))
        asked = [Request("score", base, results.append, choices=rows) for rows in (
            (base[:2], base[:20]), (base[:2], base[:0]), (base[:2], array("q", [-3])))]
        model.submit(asked)
        assert model.core.wait_idle(10)
        assert [getattr(r.error, "code", None) for r in results] \
            == ["SGLC501", "SGLC507", "SGLC507"]
        model.core.check()


def test_cancelled_in_the_middle() -> None:
    with sgl.HashModel(max_batch_tokens=4) as model:
        results: list[Result] = []
        rows = tuple(array("q", range(i, i + 9)) for i in range(30))
        one = Request("score", array("q", range(50)), results.append, choices=rows)
        model.submit([one])
        model.cancel([one])
        assert model.core.wait_idle(10)
        assert len(results) == 1 and results[0].error is not None
        assert model.stats().kv_in_use == 0
        model.core.check()
