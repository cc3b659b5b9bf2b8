"""`/generate`: SGLang's request and answer shapes, equal to the engine's own results."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import sglc
from sglc.serve.requests import MAX_PROMPTS
from tests.serve.servers import Running, events

GREEDY = {"max_new_tokens": 16, "temperature": 0}


@pytest.fixture(scope="module")
def local() -> Any:
    with sglc.HashModel() as backend:
        yield backend


def test_one_text(server: Running, local: Any) -> None:
    status, answer, headers = server.post(
        "/generate", {"text": "Once upon a time,", "sampling_params": GREEDY})
    want = local.generate("Once upon a time,", sampling=GREEDY)
    assert status == 200 and headers["Content-Type"].startswith("application/json")
    assert answer["text"] == want.text and answer["output_ids"] == want.ids
    meta = answer["meta_info"]
    assert meta["prompt_tokens"] == 17 and meta["completion_tokens"] == (
        want.meta["completion_tokens"])
    assert meta["finish_reason"] == want.meta["finish_reason"] and meta["id"]


def test_a_batch_keeps_its_order_and_may_have_params_each(server: Running, local: Any) -> None:
    texts = [f"prompt {i}" for i in range(9)]
    params = [{"max_new_tokens": 3 + i, "temperature": 0} for i in range(9)]
    _, answer, _ = server.post("/generate", {"text": texts, "sampling_params": params})
    want = local.generate(texts, sampling=params)
    assert [a["text"] for a in answer] == [w.text for w in want]


def test_input_ids(server: Running, local: Any) -> None:
    _, one, _ = server.post("/generate", {"input_ids": [72, 105], "sampling_params": GREEDY})
    _, many, _ = server.post("/generate", {"input_ids": [[72, 105]], "sampling_params": GREEDY})
    want = local.generate(input_ids=[72, 105], sampling=GREEDY)
    assert one["text"] == want.text and [m["text"] for m in many] == [want.text]


def test_raw_prompts_parse_control_tokens(server: Running) -> None:
    _, answer, _ = server.post("/generate", {"text": "<|im_start|>a", "sampling_params": GREEDY})
    assert answer["meta_info"]["prompt_tokens"] == 2


def test_prefill_only(server: Running) -> None:
    body = {"text": "a prefix that is kept", "sampling_params": {"max_new_tokens": 0}}
    _, answer, _ = server.post("/generate", body)
    assert answer["text"] == "" and answer["meta_info"]["completion_tokens"] == 0
    _, again, _ = server.post("/generate", {**body, "text": "a prefix that is kept, and more"})
    assert again["meta_info"]["cached_tokens"] >= 20


def test_streams_are_cumulative_and_end_in_the_same_text(server: Running) -> None:
    for params in (GREEDY, {**GREEDY, "stop": ["e"]}, {"max_new_tokens": 40, "seed": 3}):
        body = {"text": "stream", "sampling_params": params}
        _, whole, _ = server.post("/generate", body)
        _, text, headers = server.post("/generate", {**body, "stream": True})
        got = events(text)
        assert headers["Content-Type"].startswith("text/event-stream")
        assert got.pop() == "[DONE]"
        texts = [e["text"] for e in got]
        assert all(b.startswith(a) for a, b in pairwise(texts))
        assert texts[-1] == whole["text"]
        assert got[-1]["meta_info"]["finish_reason"] == whole["meta_info"]["finish_reason"]


def test_a_batch_streams_with_an_index(server: Running) -> None:
    body = {"text": ["a", "b"], "sampling_params": GREEDY}
    _, whole, _ = server.post("/generate", body)
    _, text, _ = server.post("/generate", {**body, "stream": True})
    last = {e["index"]: e["text"] for e in events(text)[:-1]}
    assert [last[0], last[1]] == [w["text"] for w in whole]


def test_log_probabilities(server: Running, local: Any) -> None:
    _, answer, _ = server.post("/generate", {
        "text": "score me", "sampling_params": GREEDY, "return_logprob": True,
        "logprob_start_len": 0, "top_logprobs_num": 2, "return_text_in_logprobs": True})
    meta = answer["meta_info"]
    want = local.generate("score me", sampling={
        **GREEDY, "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2})
    got = [lp for lp, _, _ in meta["output_token_logprobs"]]
    assert got == pytest.approx([lp for lp, _, _ in want.meta["output_token_logprobs"]])
    assert [t for _, t, _ in meta["input_token_logprobs"]] == list(b"score me")
    assert [x for _, _, x in meta["input_token_logprobs"]] == list("score me")
    assert meta["input_token_logprobs"][0][0] is None
    assert all(len(step) == 2 for step in meta["output_top_logprobs"])


def test_sglangs_select_request(server: Running, local: Any) -> None:
    """What SGLang's frontend posts to score choices, in both versions' field names."""
    prompt, choices = "I need a ", ["calculator", "search engine"]
    server.post("/generate", {"text": prompt, "sampling_params": {"max_new_tokens": 0}})
    _, answer, _ = server.post("/generate", {
        "text": [prompt + c for c in choices], "return_logprob": True,
        "return_text_in_logprobs": True, "logprob_start_len": len(prompt),
        "sampling_params": {"max_new_tokens": 0, "temperature": 0}})
    means = [a["meta_info"]["normalized_prompt_logprob"] for a in answer]
    assert len(answer[0]["meta_info"]["input_token_logprobs"]) == len("calculator")

    @sglc.program
    def pick(s):  # type: ignore[no-untyped-def]
        s += prompt + sglc.select("c", choices)

    state = pick.run(backend=local)
    assert state["c"] == choices[means.index(max(means))]
    want = state.get_meta_info("c")["normalized_prompt_logprobs"]
    assert means == pytest.approx(want)


@pytest.mark.parametrize(("field", "value", "check"), [
    ("regex", "[0-9]{3}", lambda t: len(t) == 3 and t.isdigit()),
    ("json_schema", '{"type": "integer", "maximum": 99, "minimum": 0}', str.isdigit),
    ("json_schema", {"enum": ["red", "green"]}, lambda t: t in ('"red"', '"green"')),
    ("choices", ["left", "right"], lambda t: t in ("left", "right")),
    ("ebnf", 'root ::= "ab" | "cd"', lambda t: t in ("ab", "cd")),
    ("dtype", "int", lambda t: int(t) is not None),
])
def test_constraints(server: Running, field: str, value: Any, check: Any) -> None:
    status, answer, _ = server.post("/generate", {
        "text": "x: ", "sampling_params": {"max_new_tokens": 40, field: value}})
    assert status == 200, answer
    assert check(answer["text"])


def test_samples(server: Running) -> None:
    params = {"max_new_tokens": 12, "n": 3, "seed": 1}
    _, one, _ = server.post("/generate", {"text": "x", "sampling_params": params})
    _, two, _ = server.post("/generate", {"text": "x", "sampling_params": params})
    assert len(one) == 3 and len({a["text"] for a in one}) == 3
    assert [a["text"] for a in one] == [a["text"] for a in two]
    _, fresh, _ = server.post("/generate", {"text": "x", "sampling_params": {
        "max_new_tokens": 12, "n": 3}})
    assert [a["text"] for a in fresh] != [a["text"] for a in one]


@pytest.mark.parametrize(("body", "code"), [
    ({}, "invalid_value"), ({"text": "a", "input_ids": [1]}, "invalid_value"),
    ({"text": []}, "invalid_value"), ({"text": ["a"] * (MAX_PROMPTS + 1)}, "invalid_value"),
    ({"text": ""}, "invalid_request"), ({"input_ids": [10**6]}, "invalid_request"),
    ({"text": "a", "nonsense": 1}, "unknown_field"),
    ({"text": "a", "image_data": "x"}, "unsupported"),
    ({"text": "a", "sampling_params": {"temperature": -1}}, "invalid_value"),
    ({"text": "a", "sampling_params": {"stop_regex": "(a+)+$"}}, "unsupported"),
    ({"text": "a", "sampling_params": {"regex": "("}}, "invalid_regex"),
    ({"text": "a", "sampling_params": {"regex": "a", "json_schema": "{}"}}, "invalid_value"),
    ({"text": "a", "sampling_params": {"json_schema": "{"}}, "invalid_schema"),
    ({"text": "a", "sampling_params": {"n": 10**6}}, "invalid_value"),
    ({"text": ["a", "b"], "sampling_params": [{}]}, "invalid_value"),
    ({"text": "a" * 70_000}, "context_length_exceeded"),
])
def test_what_makes_no_sense_is_a_400(server: Running, body: Any, code: str) -> None:
    status, answer, _ = server.post("/generate", body)
    assert status == 400, answer
    assert answer["error"]["code"] == code and answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
