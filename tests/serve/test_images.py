"""Images in chats: data: URLs through OpenAI's own form, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL")
pytest.importorskip("transformers")

import sglc as sgl
from tests.runtime.vision_models import (
    draw,
    encoded,
    save_llava,
    save_tokenizer,
)
from tests.serve.servers import Running, running

PICTURE = encoded(draw(33, 40))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("serve")
    save_llava(root / "llava")
    save_tokenizer(root / "tokenizer")
    with running(model=str(root / "llava"), tokenizer=str(root / "tokenizer"), device="cpu",
                 chat_template="vicuna_v1.1", kv_tokens=2048) as made:
        yield made
        assert made.idle()


def url_of(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def ask(server: Running, *parts: Any, **more: Any) -> Any:
    return server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": p} if isinstance(p, str) else
            {"type": "image_url", "image_url": p[0]} for p in parts]}],
        "temperature": 0, "max_tokens": 8, "ignore_eos": True, **more})


def test_a_chat_with_an_image_is_the_program_with_it(server) -> None:
    @sgl.program
    def image_qa(s, image, question):
        s += sgl.user(sgl.image(image) + question) + sgl.assistant(sgl.gen(
            "answer", max_tokens=8, temperature=0, ignore_eos=True))

    expected = image_qa.run(image=PICTURE, question="What?", backend=server.backend)["answer"]
    encodes = server.backend.stats().images_encoded
    status, body, _ = ask(server, ({"url": url_of(PICTURE), "detail": "auto"},), "What?")
    assert status == 200
    assert body["choices"][0]["message"]["content"] == expected
    assert body["usage"]["prompt_tokens"] > 9
    assert server.backend.stats().images_encoded == encodes
    status, streamed, _ = ask(server, (url_of(PICTURE),), "What?", stream=True)
    assert status == 200 and "data: [DONE]" in streamed


def test_several_images(server) -> None:
    other = encoded(draw(20, 20, 5), "JPEG")
    status, body, _ = ask(server, "a", (url_of(PICTURE),), "b", (url_of(other),), "c", n=2)
    assert status == 200 and len(body["choices"]) == 2


@pytest.mark.parametrize(("url", "says"), [
    ("https://example.com/a.png", "not fetched"), ("file:///etc/passwd", "not fetched"),
    ("/etc/passwd", "not fetched"), ({"url": 5}, "data: URL"), (None, "data: URL"),
    (url_of(PICTURE[:300]), "SGLC510"), (url_of(b"GIF89a"), "SGLC510"),
    ("data:image/png;base64,%%%", "base64"), ("data:,", "base64")])
def test_other_images_are_refused(server, url, says) -> None:
    status, body, _ = ask(server, (url,), "What?")
    assert status == 400
    assert body["error"]["code"] == "invalid_image" and says in body["error"]["message"]


def test_programs_that_are_posted_read_no_files(server, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PICTURE)

    @sgl.program
    def reads(s, image):
        s += sgl.image(image) + sgl.gen("x", max_tokens=2)

    with sgl.RuntimeEndpoint(server.url) as remote, pytest.raises(sgl.SglcError, match="image"):
        reads.run(image=str(file), backend=remote)["x"]
