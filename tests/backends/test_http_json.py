"""JSON over HTTP: what is asked again, what is not, and what errors say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from sglc.backends.http_json import HttpJson
from sglc.errors import ApiError, LanguageError
from tests.serve.matrix.faults import Faulty, answer


@pytest.fixture
def server() -> Iterator[Faulty]:
    made = Faulty()
    yield made
    made.close()


GOOD = answer(200, b'{"fine": 1}')


@pytest.mark.parametrize("script", [
    [answer(429, b"{}"), GOOD], [answer(503, b"{}", "Retry-After: 0"), GOOD], [b"", GOOD],
    [answer(429, b"{}", "Retry-After: soon"), GOOD], [b"reset", GOOD]])
def test_what_had_no_effect_is_asked_again(server: Faulty, script: list[bytes]) -> None:
    server.script = script
    assert HttpJson(server.url).call("POST", "/x", {}) == {"fine": 1}
    assert server.asked == 2


def test_retry_after_is_kept_to(server: Faulty) -> None:
    server.script = [answer(429, b"{}", "Retry-After: 1"), GOOD]
    began = time.monotonic()
    HttpJson(server.url).call("POST", "/x", {})
    assert 1 <= time.monotonic() - began < 5


@pytest.mark.parametrize(("script", "status", "said", "asked"), [
    ([answer(500, b'{"error": {"message": "it broke"}}')], 500, "it broke", 1),
    ([answer(404, b"<html>none</html>")], 404, "<html>none", 1),
    ([answer(302, b"", "Location: http://127.0.0.1:9/")], 302, "", 1),
    ([answer(429, b'{"error": {"message": "full"}}')], 429, "full", 3), ([b"hang"], None, "", 1),
])
def test_errors(server: Faulty, script: list[bytes], status: int | None, said: str,
                asked: int) -> None:
    server.script = script
    with pytest.raises(ApiError) as found:
        HttpJson(server.url, retries=2, timeout=0.4).call("POST", "/x", {})
    assert found.value.status == status and said in str(found.value)
    assert server.asked == asked


def test_nobody_there() -> None:
    with pytest.raises(ApiError, match="connection") as found:
        HttpJson("http://127.0.0.1:9", retries=1).call("GET", "/x")
    assert found.value.status is None
    for url in ("ftp://x", "http://", "x://y"):
        with pytest.raises(LanguageError):
            HttpJson(url)


def stream(*blocks: str) -> bytes:
    return (b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            + "".join([f"data: {b}\n\n" for b in blocks]).encode())


def test_streams(server: Faulty) -> None:
    server.script = [stream('{"a": 1}', '{"a": 2}', "[DONE]")]
    assert list(HttpJson(server.url).events("/x", {})) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("blocks", [
    ['{"a": 1}'], ['{"a": 1}', '{"error": {"message": "gone"}}'], ['{"a": 1}', "{"]])
def test_streams_that_break_off(server: Faulty, blocks: list[str]) -> None:
    """What came is given, once, and then the error."""
    server.script = [stream(*blocks)]
    got: list[Any] = []
    with pytest.raises(ApiError):
        for event in HttpJson(server.url).events("/x", {}):
            got.append(event)
    assert got == [{"a": 1}] and server.asked == 1
