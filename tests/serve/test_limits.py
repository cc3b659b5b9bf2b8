"""What a client can make the server hold or do: bodies, log-probabilities, unread answers,
compilations."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sglc.serve.problems import Problem
from sglc.serve.programs import Programs
from sglc.serve.reading import parse
from sglc.serve.requests import GenerateRequest, ProgramRequest
from sglc.serve.room import Room
from sglc.serve.trace_file import TraceFile
from tests.serve.servers import Running, connection, running, send


def test_files_that_may_be_open() -> None:
    resource = pytest.importorskip("resource")
    from sglc.serve.files import allow_files

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
    try:
        allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(4096, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_room_is_given_back() -> None:
    room = Room(10, "things", 413, "too_large")
    with ExitStack() as one:
        room.hold(6, one)
        with ExitStack() as two:
            with pytest.raises(Problem) as found:
                room.hold(5, two)
            assert found.value.status == 429 and found.value.headers["Retry-After"]
            room.hold(4, two)
            assert room.taken == 10
        assert room.taken == 6
        with pytest.raises(Problem) as found:
            room.hold(11, one)
        assert (found.value.status, found.value.code) == (413, "too_large")
    assert room.taken == 0


@pytest.mark.parametrize("data", [
    b'"' + b'\\"' * 200_000, b'["' + b"\\" * 200_001, b'"a' * 200_000, b'{"a":"' + b"[" * 200_000,
    b'["\\\n' * 50_000])
def test_bodies_take_time_in_proportion_to_their_length(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Problem, match=r"JSON|deeper"):
        parse(data, GenerateRequest)
    assert time.process_time() - began < 1


def test_large_bodies_share_a_room() -> None:
    body = {"text": "x", "rid": "y" * 90_000, "sampling_params": {"max_new_tokens": 1}}
    with running() as server:
        assert server.post("/generate", body)[0] == 200
        assert server.service.bodies.taken == 0
        server.service.bodies.taken = server.service.bodies.most
        status, answer, headers = server.post("/generate", body)
        assert status == 429 and headers["Retry-After"] and answer["error"]["code"] == "queue_full"
        assert server.post("/generate", {**body, "rid": "y"})[0] == 200  # small ones go on
        server.service.bodies.taken = 0
        assert server.post("/generate", body)[0] == 200
        packed = gzip.compress(json.dumps(body).encode())  # small, until it is unpacked
        server.service.bodies.taken = server.service.bodies.most
        for data, more in ((packed, {"Content-Encoding": "gzip"}), (
                json.dumps(body).encode(), {})):
            assert send(server.url + "/generate", data, more)[0] == 429
        server.service.bodies.taken = 0
        assert send(server.url + "/generate", packed, {"Content-Encoding": "gzip"})[0] == 200
        assert server.service.bodies.taken == 0


@pytest.mark.parametrize(("path", "body"), [
    ("/generate", {"text": ["x"] * 100, "return_logprob": True, "top_logprobs_num": 20,
                   "sampling_params": {"max_new_tokens": 30_000}}),
    ("/v1/completions", {"prompt": ["x"] * 100, "logprobs": 20, "max_tokens": 30_000}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "logprobs": True,
                              "top_logprobs": 20, "n": 16, "max_tokens": 30_000})])
def test_log_probabilities_are_bounded(server: Running, path: str, body: dict[str, Any]) -> None:
    status, answer, _ = server.post(path, body)
    assert status == 400 and answer["error"]["code"] == "too_many_logprobs"
    assert server.service.logprobs.taken == 0
    few = json.loads(json.dumps(body).replace("30000", "2"))
    assert server.post(path, few)[0] == 200


def test_log_probabilities_of_prompts_are_held_too(server: Running) -> None:
    """Also where nothing is generated: their answers are made off the loop, like others."""
    service, kept = server.service, server.service.logprobs
    score = {"text": "x" * 50, "return_logprob": True, "logprob_start_len": 0,
             "sampling_params": {"max_new_tokens": 0}}
    echo = {"prompt": "x" * 50, "logprobs": 0, "echo": True, "max_tokens": 0}
    kept.taken = kept.most - 40
    try:
        for path, body in (("/generate", score), ("/v1/completions", echo)):
            assert server.post(path, body)[0] == 429
    finally:
        kept.taken = 0
    for path, body in (("/generate", score), ("/v1/completions", echo)):
        assert server.post(path, body)[0] == 200
    assert service.logprobs.taken == 0


def test_a_programs_log_probabilities_are_bounded(server: Running) -> None:
    ir = ('program @p() {\n  %p0 = prompt.root\n  %p1, %a: !text, %m = prompt.gen %p0 '
          '{name = "a", path = [0], top_logprobs_num = 20, max_tokens = 2000}\n'
          "  prompt.return %p1\n}\n")
    status, answer, _ = server.post("/v1/programs", {"ir": ir, "rows": [{}] * 300})
    assert status == 400 and answer["error"]["code"] == "too_many_logprobs"
    assert server.post("/v1/programs", {"ir": ir.replace("2000", "2"), "rows": [{}]})[0] == 200


def test_texts_that_cannot_fit_are_not_tokenized(server: Running,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service.chats, "prompt", None)
    text = "x" * (server.service._most_text + 1)
    chat = [{"role": "user", "content": text}]
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    for path, body in (("/generate", {"text": text}), ("/v1/completions", {"prompt": text}),
                       ("/v1/chat/completions", {"messages": chat}),
                       ("/v1/chat/completions", {"messages": parts})):
        status, answer, _ = server.post(path, body)
        assert status == 400 and answer["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_do_not_read_are_cut_off(stream: bool) -> None:
    with running(limits={"write_seconds": 0.3}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps({"text": "x", "stream": stream, "return_logprob": True,
                           "top_logprobs_num": 20, "sampling_params": {
                               "max_new_tokens": 3000, "ignore_eos": True}}).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            client.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                           b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                           % len(body) + body)
            until = time.monotonic() + 30
            until_open(server, 1, until)
            until_open(server, 0, until)
        assert server.idle() and server.post("/generate", {"text": "x"})[0] == 200


def until_open(server: Running, n: int, until: float) -> None:
    """Wait until as many connections are open."""
    while server.open != n:
        assert time.monotonic() < until, f"{server.open} connections"
        time.sleep(0.005)


def test_a_reader_that_is_slow_gets_everything() -> None:
    with running(limits={"write_seconds": 0.3}) as server:
        client = connection(server.url)
        client.request("POST", "/generate", json.dumps({
            "text": "x", "return_logprob": True, "top_logprobs_num": 20, "sampling_params": {
                "max_new_tokens": 2000, "ignore_eos": True}}),
            {"Content-Type": "application/json"})
        response = client.getresponse()
        data = b""
        while piece := response.read(100_000):
            data += piece
            time.sleep(0.05)
        assert len(json.loads(data)["output_ids"]) == 2000 and len(data) > 700_000
        client.close()


def test_what_waits_for_other_compilations_is_not_at_fault() -> None:
    with running(limits={"constraint_seconds": 0.3}) as server:
        release = threading.Event()
        for _ in range(2):
            server.service.compiling.submit(release.wait, 10)
        body = {"text": "x", "sampling_params": {"regex": "a{3}"}}
        status, answer, headers = server.post("/generate", body)
        assert status == 503 and answer["error"]["code"] == "busy" and headers["Retry-After"]
        release.set()
        assert server.post("/generate", body)[0] == 200


def test_an_engine_that_does_not_answer() -> None:
    with running(limits={"answer_seconds": 0.2}) as server:
        release = threading.Event()
        for _ in range(2):
            server.service.control.submit(release.wait, 10)
        for path in ("/metrics", "/get_server_info", "/flush_cache"):
            assert server.get(path)[0] == 503
        assert server.get("/health")[0] == 200
        release.set()


def test_lowered_programs_are_kept_by_their_size(server: Running,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglc.serve.programs._KEPT_TEXT", 4000)
    kept = Programs()
    for i in range(12):
        text = ("program @p(%q: !text) {\n  %p0 = prompt.root\n"
                f'  %p1 = prompt.append %p0, "{i}{"x" * 900}"\n  prompt.return %p1\n}}\n')
        body = ProgramRequest(ir=text, rows=[{"q": "x"}])
        kept.lowered(server.service, body, _defaults())
        assert kept._text == sum(len(k[0]) for k in kept._kept) <= 4000
    assert 1 <= len(kept._kept) <= 4


def _defaults() -> Any:
    from sglc.config import RunOptions

    return RunOptions()


def test_a_trace_file_ends_where_it_is_full(tmp_path: Path) -> None:
    trace = TraceFile(str(tmp_path / "t.json"), 500)
    for i in range(20):
        trace.request("/generate", time.monotonic(), time.monotonic(), id=i)
    trace.counter("kv", {"a": 1.0})
    trace.close()
    found = json.loads((tmp_path / "t.json").read_text())
    assert 1 <= len(found) < 20


def test_a_trace_file_that_cannot_be_written_fails_no_request(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full here")
    with running(trace_file="/dev/full") as server:
        assert server.post("/generate", {"text": "x"})[0] == 200
        assert server.post("/generate", {"text": "x"})[0] == 200
