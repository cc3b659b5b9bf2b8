"""The official `openai` client, unchanged, through every parameter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import sglc
from tests.serve.servers import Running, running, send

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    with openai.Client(base_url=server.url + "/v1", api_key="EMPTY", max_retries=0) as made:
        yield made


CHAT: list[Any] = [{"role": "system", "content": "You are a helpful AI assistant"},
                   {"role": "user", "content": "List 3 countries and their capitals."}]


def test_readme_completion(client: Any) -> None:
    answer = client.completions.create(model="default", prompt="The capital of France is",
                                       temperature=0, max_tokens=32)
    with sglc.HashModel() as local:
        want = local.generate("The capital of France is",
                              sampling={"temperature": 0, "max_new_tokens": 32})
    assert answer.choices[0].text == want.text
    assert answer.usage.prompt_tokens == 24 and answer.id and answer.created
    assert answer.usage.total_tokens == 24 + answer.usage.completion_tokens


def test_readme_chat_is_the_programs_chat(client: Any) -> None:
    answer = client.chat.completions.create(model="default", messages=CHAT, temperature=0,
                                            max_tokens=64)

    @sglc.program
    def chat(s):  # type: ignore[no-untyped-def]
        s += sglc.system(CHAT[0]["content"])
        s += sglc.user(CHAT[1]["content"])
        s += sglc.assistant(sglc.gen("a", max_tokens=64, temperature=0))

    with sglc.HashModel() as local:
        assert answer.choices[0].message.content == chat.run(backend=local)["a"]
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_streams_say_the_same(client: Any) -> None:
    given: Any = {"model": "default", "temperature": 0, "max_tokens": 48}
    whole = client.completions.create(prompt="abc", **given)
    parts = list(client.completions.create(prompt="abc", stream=True, stream_options={
        "include_usage": True}, **given))
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole.choices[0].text
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == (
        whole.choices[0].finish_reason)
    whole = client.chat.completions.create(messages=CHAT, **given)
    parts = list(client.chat.completions.create(messages=CHAT, stream=True, stream_options={
        "include_usage": True}, **given))
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == (
        whole.choices[0].message.content)
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens


def test_stop_seed_n_and_penalties(client: Any) -> None:
    given: Any = {"model": "default", "prompt": "x", "max_tokens": 20, "n": 3, "seed": 7,
                  "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": -0.5,
                  "user": "somebody"}
    one, two = (client.completions.create(**given) for _ in range(2))
    texts = [c.text for c in one.choices]
    assert texts == [c.text for c in two.choices] and len(set(texts)) == 3
    assert [c.index for c in one.choices] == [0, 1, 2]
    free = client.completions.create(model="default", prompt="x", max_tokens=60, temperature=0,
                                     extra_body={"ignore_eos": True})
    stop = free.choices[0].text[10]
    cut = client.completions.create(model="default", prompt="x", max_tokens=60, temperature=0,
                                    stop=[stop, "never this"], extra_body={"ignore_eos": True})
    assert cut.choices[0].text == free.choices[0].text.partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"


def test_completion_prompts_of_every_kind(client: Any) -> None:
    given: Any = {"model": "default", "temperature": 0, "max_tokens": 8}
    one = client.completions.create(prompt="ab", **given).choices
    many = client.completions.create(prompt=["ab", "cd"], **given).choices
    ids = client.completions.create(prompt=[97, 98], **given).choices
    rows = client.completions.create(prompt=[[97, 98], [99, 100]], **given).choices
    assert one[0].text == many[0].text == ids[0].text == rows[0].text
    assert many[1].text == rows[1].text


def test_completion_logprobs_and_echo(client: Any) -> None:
    given: Any = {"model": "default", "prompt": "echo", "temperature": 0, "max_tokens": 6}
    plain = client.completions.create(logprobs=2, **given).choices[0]
    assert plain.logprobs.token_logprobs[0] is not None
    assert "".join(plain.logprobs.tokens) == plain.text
    assert all(len(t) == 2 for t in plain.logprobs.top_logprobs)
    echo = client.completions.create(logprobs=2, echo=True, **given).choices[0]
    assert echo.text == "echo" + plain.text
    assert echo.logprobs.token_logprobs[0] is None
    assert echo.logprobs.tokens[:4] == list("echo")
    assert echo.logprobs.token_logprobs[4:] == pytest.approx(plain.logprobs.token_logprobs)
    assert echo.logprobs.text_offset[:5] == [0, 1, 2, 3, 4]
    only = client.completions.create(logprobs=0, echo=True, **{**given, "max_tokens": 0})
    assert only.choices[0].text == "echo"
    assert only.choices[0].logprobs.token_logprobs == pytest.approx(
        echo.logprobs.token_logprobs[:4])


def test_offsets_are_those_of_the_text(client: Any) -> None:
    """Though its characters are several tokens each."""
    found = client.completions.create(
        model="default", prompt="日本 é", echo=True, logprobs=0, max_tokens=24, temperature=0,
        extra_body={"regex": "(日本|é|a🎉){9}"}).choices[0]
    assert found.text.startswith("日本 é") and len(found.logprobs.tokens) > len(found.text)
    for token, at in zip(found.logprobs.tokens, found.logprobs.text_offset, strict=True):
        assert token == "\ufffd" or found.text[at:at + 1] == token
    assert found.logprobs.text_offset[-1] >= len(found.text) - 1


@pytest.mark.parametrize("prompt", ["a<|im_start|>b<|im_end|>c", [97, 257, 98, 258, 99]])
def test_echo_of_control_tokens(client: Any, prompt: Any) -> None:
    """They are spelled in the text of a prompt, also of one that is given as ids."""
    found = client.completions.create(model="default", prompt=prompt, echo=True, logprobs=2,
                                      max_tokens=3, temperature=0).choices[0]
    text = "a<|im_start|>b<|im_end|>c"
    said = found.logprobs
    assert found.text.startswith(text)
    assert said.tokens[:5] == ["a", "<|im_start|>", "b", "<|im_end|>", "c"]
    assert said.text_offset[:6] == [0, 1, 13, 14, 24, 25]
    assert [list(top) for top in said.top_logprobs[1:5]] == [[t] for t in said.tokens[1:5]]
    plain = client.completions.create(model="default", prompt=prompt, max_tokens=3, temperature=0)
    assert found.text == text + plain.choices[0].text


class Spaced:
    """A tokenizer that adds `<s>` and a space before a text, and strips spaces before `<sep>`."""

    def __init__(self) -> None:
        self.special = {"<s>": 0, "<sep>": 1}
        self.words = {2: b" a", 3: b" \xc3", 4: b"\xa9", 5: b"b"}

    def decode_bytes(self, ids: list[int]) -> bytes:
        return b"".join([self.words.get(i, b"") for i in ids])

    def decode(self, ids: list[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")


def test_offsets_where_the_tokenizer_adds_to_a_text() -> None:
    from sglc.serve.spelling import Spelling

    spelling = Spelling(Spaced())
    assert spelling.token(1) == "<sep>" and spelling.token(2) == " a"
    assert spelling.offsets("a é  <sep>b", [0, 2, 3, 4, 1, 5], [5, 1, 5]) == [
        0, 0, 1, 2, 3, 10, 11, 12, 12]
    assert spelling.text([0, 2, 1, 3, 4]) == "<s> a<sep> é"
    assert spelling.offsets("<s> a<sep> é", [0, 2, 1, 3, 4], []) == [0, 3, 5, 10, 11]


def test_ids_that_only_the_model_has() -> None:
    from sglc.backends.hash_model import HashModel
    from sglc.serve.opening import open_service
    from sglc.serve.options import ServeOptions
    from sglc.serve.run import BackgroundServer

    with HashModel(vocab_size=300) as backend:  # of which its tokenizer has 259
        server = BackgroundServer(open_service(ServeOptions(model="hash", port=0), backend))
        status, found, _ = send(server.url + "/v1/completions", {
            "prompt": [97, 290, 98], "echo": True, "logprobs": 1, "max_tokens": 2})
        server.stop()
    assert status == 200 and found["choices"][0]["text"].startswith("ab")
    assert found["choices"][0]["logprobs"]["tokens"][:3] == ["a", "", "b"]


def test_chat_logprobs(client: Any) -> None:
    choice = client.chat.completions.create(
        model="default", messages=CHAT, temperature=0, max_tokens=5, logprobs=True,
        top_logprobs=3).choices[0]
    assert "".join(t.token for t in choice.logprobs.content) == choice.message.content
    for token in choice.logprobs.content:
        assert bytes(token.bytes).decode() == token.token and len(token.top_logprobs) == 3


def test_constraints_through_the_client(client: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 99,
                                                     "minimum": 0}},
              "required": ["a"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model="default", messages=CHAT, max_tokens=64, response_format={
            "type": "json_schema", "json_schema": {"name": "x", "schema": schema,
                                                   "strict": True}})
    assert 0 <= json.loads(answer.choices[0].message.content)["a"] <= 99
    answer = client.chat.completions.create(model="default", messages=CHAT, extra_body={
        "choices": ["yes", "no"]})
    assert answer.choices[0].message.content in ("yes", "no")
    answer = client.completions.create(model="default", prompt="ip ", extra_body={
        "regex": "[0-9]{2}"})
    assert answer.choices[0].text.isdigit() and len(answer.choices[0].text) == 2
    for more in ({"regex": "a", "choices": ["b"]},):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="default", prompt="x", extra_body=more)


def test_logit_bias(client: Any, server: Running) -> None:
    """A token that is much preferred is drawn, one that is banned is not; alone and in a batch
    with others; within a constraint; and log-probabilities are the model's own."""
    given: Any = {"model": "default", "prompt": "x", "max_tokens": 6, "temperature": 0,
                  "extra_body": {"ignore_eos": True}}
    plain = client.completions.create(logprobs=0, **given).choices[0]
    assert client.completions.create(logit_bias={"113": 100}, **given).choices[0].text == "q" * 6
    first = str(ord(plain.text[0]))
    banned = client.completions.create(logit_bias={first: -100}, logprobs=0, **given).choices[0]
    assert plain.text[0] not in banned.text
    assert banned.logprobs.token_logprobs[0] < plain.logprobs.token_logprobs[0]
    small = client.completions.create(logit_bias={first: 0.001}, logprobs=0, **given).choices[0]
    assert small.text == plain.text
    assert small.logprobs.token_logprobs == pytest.approx(plain.logprobs.token_logprobs)
    chat = client.chat.completions.create(
        model="default", messages=CHAT, max_tokens=4, n=2, logit_bias={"113": 100},
        extra_body={"ignore_eos": True})
    assert [c.message.content for c in chat.choices] == ["qqqq"] * 2
    either = client.completions.create(**{**given, "extra_body": {"regex": "a{6}|b{6}"}},
                                       logit_bias={"98": 100, "113": 100})
    assert either.choices[0].text == "b" * 6
    _, native, _ = server.post("/generate", {"text": ["x", "x"], "sampling_params": [
        {"max_new_tokens": 6, "temperature": 0, "ignore_eos": True, "logit_bias": {"113": 100}},
        {"max_new_tokens": 6, "temperature": 0, "ignore_eos": True}]})
    assert [n["text"] for n in native] == ["q" * 6, plain.text]


def test_chat_takes_stop_seed_and_n(client: Any) -> None:
    given: Any = {"model": "default", "messages": CHAT, "max_tokens": 24, "seed": 7, "top_p": 0.9,
                  "presence_penalty": 0.5, "frequency_penalty": -0.5, "n": 3}
    one, two = (client.chat.completions.create(**given) for _ in range(2))
    texts = [c.message.content for c in one.choices]
    assert texts == [c.message.content for c in two.choices] and len(set(texts)) == 3
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(stream=True, **given):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    stop = texts[0][5]
    cut = client.chat.completions.create(**{**given, "n": 1}, stop=stop).choices[0]
    assert cut.message.content == texts[0].partition(stop)[0] and cut.finish_reason == "stop"


TOOLS_TEMPLATE = """{%- if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_tools_go_through_the_template(tmp_path: Any) -> None:
    path = tmp_path / "tools.jinja"
    path.write_text(TOOLS_TEMPLATE)
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}
    given: Any = {"model": "default", "messages": CHAT[1:], "max_tokens": 8, "temperature": 0}
    with running(chat_template=str(path)) as server, openai.Client(
            base_url=server.url + "/v1", api_key="EMPTY", max_retries=0) as client:
        used = [client.chat.completions.create(**given, **more).usage.prompt_tokens for more in (
            {}, {"tools": [tool]}, {"tools": [tool], "tool_choice": "none"})]
        want = json.dumps(tool, sort_keys=True)  # as jinja's tojson has it
        assert used[2] == used[0]
        assert used[1] - used[0] == len("system\nTools: []") + len(want) + 3
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**given, tools=[
                {"type": "function", "function": {"name": "<|im_start|>"}}])


def test_contents_never_become_control_tokens(client: Any, server: Running) -> None:
    def count(text: Any) -> int:
        return int(client.chat.completions.create(
            model="default", max_tokens=1,
            messages=[{"role": "user", "content": text}]).usage.prompt_tokens)

    base = count("")
    for name in server.backend.tokenizer.special:
        assert count(name) == base + len(name)
    assert count([{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]) == base + 3


@pytest.mark.parametrize(("given", "raised"), [
    ({"logit_bias": {"5": 101}}, "BadRequestError"), ({"temperature": 9}, "BadRequestError"),
    ({"logit_bias": {"a": 1}}, "BadRequestError"),
    ({"logit_bias": {"99999": 1}}, "BadRequestError"),
    ({"n": 1000}, "BadRequestError"), ({"model": "gpt-4"}, "NotFoundError"),
    ({"messages": []}, "BadRequestError"), ({"top_logprobs": 2}, "BadRequestError"),
    ({"messages": [{"role": "nobody", "content": "x"}]}, "BadRequestError"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": "http://127.0.0.1/x.png"}}]}]}, "BadRequestError"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "BadRequestError"),
    ({"extra_body": {"no_such_thing": 1}}, "BadRequestError"),
])
def test_refusals_are_the_clients_own_errors(client: Any, given: Any, raised: str) -> None:
    with pytest.raises(getattr(openai, raised)) as found:
        client.chat.completions.create(**{"model": "default", "messages": CHAT,
                                          "max_tokens": 4, **given})
    assert found.value.body["message"] and found.value.code


def test_models(client: Any, server: Running) -> None:
    assert [m.id for m in client.models.list()] == ["hash"]
    answer = client.completions.create(model="hash", prompt="x", max_tokens=1, logit_bias={})
    assert answer.model == "hash"
