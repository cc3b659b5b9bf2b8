"""What a server does to requests that it should not serve, and what it never says."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from sglc.serve import app
from sglc.serve.routes import ROUTES
from tests.serve.bad_bodies import cases
from tests.serve.servers import Running, connection, raw, running, send

KEY = {"Authorization": "Bearer secret-key"}


def test_every_route_needs_the_key_but_two() -> None:
    """Deny by default: what is no route needs it too."""
    with running(api_keys=("secret-key",), admin_key="admin-key") as server:
        paths = [(r.method, r.path, r.access) for r in ROUTES]
        for method, path, access in [*paths, ("GET", "/nowhere", "key"),
                                     ("PUT", "/generate", "key")]:
            def status(headers: dict[str, str], m: str = method, p: str = path) -> int:
                body = {} if m == "POST" else None
                return int(send(server.url + p, body, headers, m)[0])

            assert (status({}) == 401) is (access != "open"), path
            for wrong in ({"Authorization": "Bearer no"}, {"X-API-Key": "secret-ke"},
                          {"Authorization": "secret-key"}, {"Authorization": "Bearer "}):
                assert (status(wrong) == 401) is (access != "open"), path
            for right in (KEY, {"X-API-Key": "secret-key"}):
                assert (status(right) in (401, 403)) is (access == "admin"), path
            assert status({"Authorization": "Bearer admin-key"}) not in (401, 403), path
        found = server.get("/v1/models")[1]["error"]
        assert found["type"] == "authentication_error" and found["code"] == "invalid_api_key"


def test_a_server_without_keys_answers_its_own_host_only(server: Running) -> None:
    assert server.get("/health", {"Host": "evil.example"})[0] == 403
    assert server.get("/health", {"Host": "localhost:1"})[0] == 200
    assert server.get("/flush_cache", {"Sec-Fetch-Site": "cross-site"})[0] == 403


CASES = cases()


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/v1/chat/completions",
                                  "/v1/programs"])
def test_bad_bodies_are_4xx_in_openais_form(server: Running, path: str) -> None:
    client = connection(server.url)
    for at, body in CASES:
        if at != path:
            continue
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        began = time.monotonic()
        client.request("POST", path, data, {"Content-Type": "application/json"})
        response = client.getresponse()
        text = response.read()
        assert 400 <= response.status < 500, (body if len(data) < 300 else data[:80], text[:200])
        error = json.loads(text)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["code"], body
        assert time.monotonic() - began < 5
    client.close()
    assert server.get("/health")[0] == 200


def test_http_that_is_none(server: Running) -> None:
    for data in (b"\x16\x03\x01\x00\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\r\n\r\n",
                 b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
                 b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
                 b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
        got = raw(server.url, data, timeout=3)
        assert got.startswith(b"HTTP/") and got[8:10] == b" 4", (data[:40], got[:100])
        assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert server.get("/nowhere")[0] == 404
    status, answer, headers = server.get("/generate")
    assert status == 405 and headers["Allow"] == "POST" and answer["error"]["code"]
    status, answer, _ = send(server.url + "/generate", b"{}", {"Content-Type": "text/plain"})
    assert status == 415 and answer["error"]["code"] == "unsupported_media_type"


def test_bodies_have_a_size() -> None:
    import gzip

    with running(max_body=10_000) as server:
        assert server.post("/generate", {"text": "x" * 20_000})[0] == 413
        bomb = gzip.compress(b'{"text": "' + b"x" * 50_000_000 + b'"}')
        status, answer, _ = send(server.url + "/generate", bomb[:9000] if len(bomb) < 9000 else
                                 bomb, {"Content-Encoding": "gzip"})
        assert status == 413 and answer["error"]["code"] == "body_too_large"


def test_slow_clients_are_cut_off() -> None:
    with running(limits={"header_seconds": 0.3, "body_seconds": 0.3}) as server:
        began = time.monotonic()
        assert raw(server.url, b"GET /health HT") == b""
        got = raw(server.url, b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                  b"application/json\r\nContent-Length: 50\r\n\r\n{")
        assert got.startswith(b"HTTP/1.1 408") and time.monotonic() - began < 5
        assert server.get("/health")[0] == 200


def test_a_full_queue_is_a_429() -> None:
    with running(limits={"sequences": 2}) as server:
        assert server.post("/generate", {"text": ["a"] * 3})[0] == 400
        server.service.gate.enter(2)
        status, answer, headers = server.post("/generate", {"text": "a"})
        assert status == 429 and headers["Retry-After"] == "1"
        assert answer["error"]["type"] == "rate_limit_error"
        server.service.gate.leave(2)
        assert server.post("/generate", {"text": "a"})[0] == 200
        text = server.get("/metrics")[1]
        assert 'sglc:rejected_total{code="queue_full",model_name="hash"} 1.0' in text
        assert server.idle()


def test_requests_have_a_deadline() -> None:
    with running(limits={"request_seconds": 0.4}) as server:
        body = {"text": "a", "sampling_params": {"max_new_tokens": 60_000, "ignore_eos": True}}
        status, answer, _ = server.post("/generate", body)
        assert status == 504 and answer["error"]["code"] == "deadline_exceeded"
        text = server.post("/generate", {**body, "stream": True})[1]
        assert json.loads(text.split("data: ")[-1])["error"]["code"] == "deadline_exceeded"
        assert server.idle()


def test_hostile_constraints_are_answered(server: Running) -> None:
    for regex in ("(a|b)*a(a|b){20}", "((((a{1,10}){1,10}){1,10}){1,10}){1,10}",
                  "(" * 5000 + ")" * 5000, "(a{0,1000}){0,1000}", "(.*)*" * 50):
        began = time.monotonic()
        status, _, _ = server.post("/generate", {"text": "x", "sampling_params": {
            "regex": regex, "max_new_tokens": 8}})
        assert status in (200, 400) and time.monotonic() - began < 12, regex[:30]


def test_logs_hold_no_prompt_text(caplog: Any) -> None:
    secret = "the-secret-of-the-prompt"
    with caplog.at_level(logging.DEBUG), running(log_format="json") as server:
        server.post("/generate", {"text": secret})
        server.post("/generate", {"text": secret, "sampling_params": {"regex": secret + "("}})
        server.post("/v1/chat/completions", {"messages": [{"role": secret, "content": secret}]})
        server.get("/" + secret + "?" + secret, {"Authorization": "Bearer " + secret})
        server.service.backend.template = None  # a defect, to see what is said of it
        server.service.chats.template = None
        status, answer, _ = server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": secret}]})
        assert status == 500 and secret not in json.dumps(answer)
    assert secret not in caplog.text
    records = [json.loads(r.message) for r in caplog.records if r.name == "sglc.serve"]
    assert any(r["event"] == "request" and r["path"] == "/generate" and r["status"] == 200
               and r["prompt_tokens"] == len(secret) for r in records)
    assert any(r["event"] == "failed" and r["error"] == "AttributeError" for r in records)


def test_the_trace_file_is_a_chrome_trace(tmp_path: Any) -> None:
    path = tmp_path / "trace.json"
    with running(trace_file=str(path)) as server:
        server.post("/generate", {"text": "secret"})
        server.post("/v1/completions", {"prompt": "secret"})
    events = json.loads(path.read_text())
    bars = [e for e in events if e["ph"] == "X"]
    assert [b["name"] for b in bars] == ["/generate", "/v1/completions"]
    assert all(b["dur"] > 0 and b["args"]["prompt_tokens"] == 6 for b in bars)
    assert "secret" not in path.read_text()


def test_digests_are_compared_in_constant_time() -> None:
    import inspect

    assert "compare_digest" in inspect.getsource(app._matches)
