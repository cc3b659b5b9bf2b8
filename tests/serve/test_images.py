"""Images in chats and in `/generate`: what is taken, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL")
pytest.importorskip("transformers")

import sglc as sgl
from tests.runtime.vision_models import draw, encoded
from tests.serve.servers import Running, events
from tests.serve.vision_server import PICTURE, data_url, save, seeing, text_of

OTHER = encoded(draw(20, 20, 5), "JPEG")
GREEDY = {"temperature": 0, "max_new_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Running]:
    with seeing(root) as made:
        yield made
        assert made.idle()
        assert made.service.bodies.taken == 0 == made.service.pictures._room.taken


@sgl.program
def image_qa(s, image, question):
    s += sgl.user(sgl.image(image) + question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=8, temperature=0, ignore_eos=True))


@sgl.program
def raw_qa(s, images, question):
    s += "See "
    for image in images:
        s += sgl.image(image)
    s += question + sgl.gen("answer", max_tokens=8, temperature=0, ignore_eos=True)


def ask(server: Running, *parts: Any, **more: Any) -> Any:
    return server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": p} if isinstance(p, str) else
            {"type": "image_url", "image_url": p[0]} for p in parts]}],
        "temperature": 0, "max_tokens": 8, "ignore_eos": True, **more})


def test_a_chat_with_an_image_is_the_program_with_it(server: Running) -> None:
    expected = image_qa.run(image=PICTURE, question="What?", backend=server.backend)["answer"]
    encodes = server.backend.stats().images_encoded
    url = data_url(PICTURE)
    status, body, _ = ask(server, ({"url": url, "detail": "auto"},), "What?")
    assert status == 200
    assert body["choices"][0]["message"]["content"] == expected
    assert body["usage"]["prompt_tokens"] > 9
    assert server.backend.stats().images_encoded == encodes
    status, streamed, _ = ask(server, (url,), "What?", stream=True)
    assert status == 200 and "data: [DONE]" in streamed


def test_the_official_client_sends_images(server: Running) -> None:
    openai = pytest.importorskip("openai")
    expected = image_qa.run(image=OTHER, question="What?", backend=server.backend)["answer"]
    with openai.Client(base_url=server.url + "/v1", api_key="EMPTY", max_retries=0) as client:
        given: Any = {
            "model": "default", "max_tokens": 8, "temperature": 0, "messages": [
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": data_url(OTHER)}},
                    {"type": "text", "text": "What?"}]}], "extra_body": {"ignore_eos": True}}
        answer = client.chat.completions.create(**given)
        assert answer.choices[0].message.content == expected
        pieces = client.chat.completions.create(stream=True, **given)
        assert "".join(p.choices[0].delta.content or "" for p in pieces) == expected
        given["messages"][0]["content"][0]["image_url"]["url"] = "https://example.com/a.png"
        with pytest.raises(openai.BadRequestError, match="not fetched"):
            client.chat.completions.create(**given)


def test_several_images(server: Running) -> None:
    status, body, _ = ask(server, "a", (data_url(PICTURE),), "b", (data_url(OTHER),), "c", n=2)
    assert status == 200 and len(body["choices"]) == 2


@pytest.mark.parametrize(("url", "says"), [
    ("https://example.com/a.png", "not fetched"), ("file:///etc/passwd", "not fetched"),
    ("/etc/passwd", "data: URL"), ({"url": 5}, "data: URL"), (None, "data: URL"),
    (data_url(PICTURE[:300]), "SGLC510"), (data_url(b"GIF89a"), "SGLC510"),
    ("data:image/png;base64,%%%", "base64"), ("data:,", "base64")])
def test_other_images_are_refused(server: Running, url: Any, says: str) -> None:
    status, body, _ = ask(server, (url,), "What?")
    assert status == 400
    assert body["error"]["code"] == "invalid_image" and says in body["error"]["message"]
    if isinstance(url, str):
        status, body, _ = server.post("/generate", {"text": "<image>x", "image_data": url})
        assert status == 400 and body["error"]["param"] == "image_data"


def test_a_text_with_images_is_the_program_with_them(server: Running) -> None:
    mark = server.get("/get_model_info")[1]["role_texts"]["image_token"]
    assert "<image>" in mark
    want = [raw_qa.run(images=i, question="What?", backend=server.backend)["answer"]
            for i in ([PICTURE], [PICTURE, OTHER])]
    assert want[0] != want[1]
    texts = [f"See {mark}What?", f"See {mark}{mark}What?"]
    files = [text_of(PICTURE), [text_of(PICTURE), data_url(OTHER)]]
    for text, given, expected in zip(texts, files, want, strict=True):
        for data in (given, [given] if isinstance(given, str) else given):
            status, body, _ = server.post("/generate", {
                "text": text, "image_data": data, "sampling_params": GREEDY})
            assert (status, body["text"]) == (200, expected)
        _, streamed, _ = server.post("/generate", {
            "text": text, "image_data": given, "sampling_params": GREEDY, "stream": True})
        assert events(streamed)[-2]["text"] == expected
    status, body, _ = server.post("/generate", {
        "text": [*texts, "no image"], "image_data": [*files, None], "sampling_params": GREEDY})
    assert [r["text"] for r in body[:2]] == want and body[2]["text"]


def test_log_probabilities_beside_images(server: Running) -> None:
    status, body, _ = server.post("/generate", {
        "text": "See <image>What?", "image_data": text_of(PICTURE), "return_logprob": True,
        "logprob_start_len": 0, "return_text_in_logprobs": True,
        "sampling_params": {"max_new_tokens": 0}})
    assert status == 200
    found = body["meta_info"]["input_token_logprobs"]
    assert len(found) == body["meta_info"]["prompt_tokens"] == 4 + 9 + 5
    assert [lp is None for lp, _, _ in found] == [True] + [False] * 3 + [True] * 9 + [False] * 5
    assert "".join(t or "*" for _, _, t in found) == "See *********What?"


@pytest.mark.parametrize(("more", "says"), [
    ({"text": "no place"}, "0 times <image>"), ({"text": "<image><image>"}, "2 times <image>"),
    ({"text": ["<image>"]}, "several prompts"), ({"text": ["<image>", "b"]}, "several prompts"),
    ({"input_ids": [1, 2]}, "with text"), ({"text": "<image>", "image_data": [["a"], "b"]}, ""),
    ({"text": ["<image>"], "image_data": []}, None), ({"text": "x", "image_data": {"a": 1}}, "")])
def test_images_that_do_not_fit_the_text(server: Running, more: Any, says: str | None) -> None:
    status, body, _ = server.post("/generate", {
        "image_data": text_of(PICTURE), "sampling_params": GREEDY, **more})
    if says is None:
        assert status == 200
        return
    assert status == 400 and says in body["error"]["message"]


def test_limits(root: Path) -> None:
    with seeing(root, max_image_pixels=33 * 39) as server:
        status, body, _ = ask(server, (data_url(PICTURE),), "What?")
        assert status == 400 and "33 x 40 pixels" in body["error"]["message"]
        assert ask(server, (data_url(OTHER),), "What?")[0] == 200
        many = [(data_url(OTHER),)] * 60  # nine positions each; the model has 512
        status, body, _ = ask(server, *many)
        assert status == 400 and body["error"]["code"] == "context_length_exceeded"
        room = server.service.pictures._room
        room.taken = room.most
        assert ask(server, (data_url(OTHER),), "What?")[0] == 429
        room.taken = 0
        assert json.loads(json.dumps(server.get("/get_model_info")[1]))["max_body_bytes"] == (
            32 << 20)
