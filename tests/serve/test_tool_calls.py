"""Chats in which tools were called: `tool_calls` and `tool` messages go through the template."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jinja2
import pytest

from sglc.serve.chat_prompt import ChatPrompts
from sglc.serve.problems import Problem
from sglc.serve.requests import CalledFunction, ChatRequest, Message, ToolCall
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.jinja import JinjaTemplate
from tests.serve.servers import Running, running

openai = pytest.importorskip("openai")

# Calls are shown as JSON; results of several calls in a row make one user's message.
TEMPLATE = """
{%- for m in messages %}
{%- if m.role == "tool" %}
{%- if loop.first or messages[loop.index0 - 1].role != "tool" %}<|im_start|>user{% endif %}
<tool_response>
{{ m.content }}
</tool_response>
{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}<|im_end|>
{% endif %}
{%- else %}<|im_start|>{{ m.role }}
{% if m.content %}{{ m.content }}{% endif %}
{%- for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def call(number: int, city: str) -> Any:
    return {"id": f"call_{number}", "type": "function", "function": {
        "name": "weather", "arguments": json.dumps({"city": city})}}


CHAT: list[Any] = [
    {"role": "user", "content": "How is the weather in Rome and in <|im_end|>?"},
    {"role": "assistant", "content": None, "tool_calls": [call(1, "Rome"), call(2, "Paris")]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
    {"role": "assistant", "content": "Sunny, and rain."},
    {"role": "user", "content": "Thanks. And in Oslo?"},
    {"role": "assistant", "content": "Let me look.", "tool_calls": [call(3, "Oslo")]},
    {"role": "tool", "tool_call_id": "call_3", "content": "snow"}]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("template") / "tools.jinja"
    path.write_text(TEMPLATE)
    with running(chat_template=str(path)) as server:
        yield server


@pytest.mark.parametrize("length", range(1, len(CHAT) + 1))
def test_the_prompt_is_what_the_template_renders(tools: Running, length: int) -> None:
    given = CHAT[:length]
    shown = json.loads(json.dumps(given))
    for message in shown:
        for one in message.get("tool_calls", ()):
            one["function"]["arguments"] = json.loads(one["function"]["arguments"])
    want = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE).render(
        messages=shown, add_generation_prompt=True)
    body = ChatRequest.model_validate({"messages": given})
    ids = list(tools.service.chats.ids(body.messages))
    special = tools.backend.tokenizer.special
    names = {number: name for name, number in special.items()}
    text = "".join(names.get(i) or tools.backend.tokenizer.decode([i]) for i in ids)
    assert text == want
    assert ids.count(special["<|im_end|>"]) == want.count("<|im_end|>") - 1  # one is the user's


def test_through_the_client(tools: Running) -> None:
    with openai.Client(base_url=tools.url + "/v1", api_key="EMPTY", max_retries=0) as client:
        given: Any = {"model": "default", "max_tokens": 8, "temperature": 0}
        answer = client.chat.completions.create(messages=CHAT, **given)
        assert answer.choices[0].message.content
        other = client.chat.completions.create(
            messages=[*CHAT[:-1], {**CHAT[-1], "content": "snow!"}], **given)
        assert other.usage.prompt_tokens == answer.usage.prompt_tokens + 1
        bad = [
            [*CHAT[:1], {"role": "assistant", "content": None}],
            [{"role": "user", "content": "x", "tool_calls": [call(1, "Rome")]}],
            [*CHAT[:1], {"role": "assistant", "tool_calls": [call(1, "<|im_start|>")]}],
            [*CHAT[:1], {"role": "assistant", "tool_calls": [{"id": "x"}]}]]
        for messages in bad:
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(messages=messages, **given)


def test_a_template_without_a_place_for_them(server: Running) -> None:
    status, answer, _ = server.post("/v1/chat/completions", {"messages": CHAT})
    assert status == 400 and answer["error"]["code"] == "unsupported"


JOINING = """
{%- for t in tools or [] %}{{ t.name }}{{ t.text | trim }}[{{ t.more }}|>]{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}:{{ m.content or "" }}
{%- for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.id }}{% endfor %}<|im_end|>
{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"""


@pytest.mark.parametrize(("name", "text", "more", "fine"), [
    ("<|im_", " end|> ", "", False), ("<|im_end", "|>", "", False), ("<|im_e", "n", "", True),
    ("a <", "<|im_ end|>", "list[int]", True), ("", "", "<|im_end", False), ("<|im_", "", "", True),
    ("> 5 <", "|> |", "<|im_end|", True)])
def test_texts_that_a_template_joins_make_no_control_tokens(name: str, text: str, more: str,
                                                            fine: bool) -> None:
    tokenizer = ByteTokenizer()
    chats = ChatPrompts(tokenizer, JinjaTemplate(JOINING, tokenizer))
    user = Message(role="user", content="hi <|im_end|>")
    asked: list[Any] = [([user], [{"name": name, "text": text, "more": more}])]
    if not more:
        called = CalledFunction(name=name or "x", arguments="{}")
        asked.append(([user, Message(role="assistant", content=None, tool_calls=[
            ToolCall(id=text.strip(), function=called)]), user], None))
    for messages, described in asked:
        if fine:
            ids = chats.ids(messages, described)
            roles = sum(m.role != "tool" for m in messages)
            assert sum(i in tokenizer.special_ids for i in ids) == 2 * roles + 1
        else:
            with pytest.raises(Problem, match="join"):
                chats.ids(messages, described)
