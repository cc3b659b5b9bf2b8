"""Disconnects, draining, the watchdog, metrics, the document, the command line."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sglc.errors import SglcError
from sglc.serve.openapi import document
from sglc.serve.routes import ROUTES
from sglc.tokens.template_file import read_template
from tests.serve.servers import Running, events, process, running, send

LONG = {"max_new_tokens": 4000, "ignore_eos": True}


def test_disconnects_leak_nothing() -> None:
    with running() as server:
        want = server.post("/generate", {"text": "steady", "sampling_params": {
            "max_new_tokens": 30, "temperature": 0}})[1]["text"]
        asyncio.run(_disconnects(server.url, 40))
        assert server.idle()
        stats = server.backend.stats()
        assert stats.kv_free + stats.kv_cached == stats.kv_total
        got = server.post("/generate", {"text": "steady", "sampling_params": {
            "max_new_tokens": 30, "temperature": 0}})[1]["text"]
        assert got == want
        assert "sglc:aborted_total" in server.get("/metrics")[1]


async def _disconnects(url: str, n: int, seed: int = 1) -> None:
    """Requests whose clients go away after a random number of bytes of the answer."""
    import aiohttp

    rng = random.Random(seed)
    async with aiohttp.ClientSession() as session:
        async def one(i: int) -> None:
            body = {"text": f"client {i}", "stream": i % 2 == 0, "sampling_params": LONG}
            try:
                if i % 2:
                    await asyncio.wait_for(session.post(url + "/generate", json=body),
                                           rng.random() * 0.2)
                    return
                async with session.post(url + "/generate", json=body) as response:
                    left = rng.randrange(4000)
                    async for piece in response.content.iter_any():
                        left -= len(piece)
                        if left < 0:
                            response.close()
                            return
            except (asyncio.TimeoutError, aiohttp.ClientError):
                return

        await asyncio.gather(*[one(i) for i in range(n)])


def test_a_drain_lets_requests_finish_and_takes_no_new_ones() -> None:
    with running() as server:
        answers: list[Any] = []
        body = {"text": "slow", "sampling_params": {**LONG, "max_new_tokens": 1500}}
        threads = [threading.Thread(target=lambda: answers.append(
            server.post("/generate", body))) for _ in range(4)]
        for t in threads:
            t.start()
        while server.service.active < 4:
            time.sleep(0.005)
        server.service.draining = True
        assert server.get("/ready")[0] == 503 and server.get("/health")[0] == 200
        status, answer, headers = server.post("/generate", {"text": "new"})
        assert status == 503 and answer["error"]["code"] == "draining"
        assert headers["Retry-After"]
        for t in threads:
            t.join()
        assert [a[0] for a in answers] == [200] * 4


def test_a_drain_that_lasts_too_long_ends_streams_with_an_error() -> None:
    with running() as server:
        got: list[Any] = []
        body = {"text": "endless", "stream": True, "sampling_params": {
            "max_new_tokens": 60_000, "ignore_eos": True}}
        thread = threading.Thread(target=lambda: got.append(server.post("/generate", body)))
        thread.start()
        while not server.service.active:
            time.sleep(0.005)
        time.sleep(0.1)
    thread.join(20)
    assert events(got[0][1])[-1]["error"]["code"] == "draining"


def test_a_process_listens_on_one_port_drains_on_sigterm_and_exits_with_0() -> None:
    with process("--log-format", "json") as (child, url):
        if Path("/proc/net/tcp").exists():
            port = int(url.rpartition(":")[2])
            assert listening(child.pid) == [f"{socket.htonl(0x7F000001):08X}:{port:04X}"]
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(send(url + "/generate", {
            "text": "x", "sampling_params": {**LONG, "max_new_tokens": 1500}})))
        thread.start()
        while "num_running_reqs" not in (text := send(url + "/metrics")[1]) or (
                'sglc:http_requests_active{model_name="hash"} 2.0' not in text):
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        thread.join(60)
        assert got[0][0] == 200 and got[0][1]["meta_info"]["completion_tokens"] == 1500
        assert child.wait(30) == 0
        child.log.seek(0)
        lines = [json.loads(line) for line in child.log.read().splitlines() if line[:1] == "{"]
        assert any(line["event"] == "draining" and line["active"] >= 1 for line in lines)


@pytest.mark.slow
def test_with_no_model_it_serves_the_default_one() -> None:
    """As `sglc serve` alone; the model is fetched the first time."""
    child = subprocess.Popen(
        [sys.executable, "-m", "sglc.cli", "serve", "--port", "0", "--kv-tokens", "4096"],
        stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split(" on ")[1].strip()
        assert "SmolLM2" in send(url + "/v1/models")[1]["data"][0]["id"]
        status, answer, _ = send(url + "/generate", {
            "text": "The capital of France is", "sampling_params": {
                "max_new_tokens": 4, "temperature": 0}})
        assert status == 200 and "Paris" in answer["text"]
    finally:
        child.terminate()
        assert child.wait(60) == 0


def listening(pid: int) -> list[str]:
    """The addresses that a process listens on, as /proc writes them."""
    inodes = {p.readlink().name for p in Path(f"/proc/{pid}/fd").iterdir() if p.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(fields[1])
    return found


def test_the_watchdog_notices_a_lost_part_of_the_model() -> None:
    with running(limits={"stall_seconds": 0.4}) as server:
        assert server.post("/generate", {"text": "x"})[0] == 200
        server.backend.core.runner.lost = True  # as where a process of the model has ended
        for _ in range(100):
            status, _, headers = server.post("/generate", {"text": "x"})
            if status == 503:
                break
            time.sleep(0.02)
        assert status == 503 and headers["Retry-After"]
        assert server.get("/health")[0] == 503


def test_the_watchdog_notices_an_engine_that_stands_still() -> None:
    with running(limits={"stall_seconds": 0.4}) as server:
        release = threading.Event()
        forward = server.backend.core.runner.forward

        def stuck(batch: Any) -> Any:
            release.wait(20)
            return forward(batch)

        server.backend.core.runner.forward = stuck
        status, answer, _ = server.post("/generate", {"text": "x"})
        assert status == 503 and answer["error"]["code"] == "engine_stalled"
        assert server.get("/health")[0] == 503
        assert server.post("/generate", {"text": "x"})[0] == 503
        server.backend.core.runner.forward = forward
        release.set()
        assert server.idle()
        until = time.monotonic() + 10
        while server.get("/health")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_the_watchdog_notices_steps_that_all_fail() -> None:
    with running(limits={"stall_seconds": 0.4}) as server:
        runner = server.backend.core.runner
        forward = runner.forward
        assert server.post("/generate", {"text": "x"})[0] == 200

        def fails(batch: Any) -> Any:
            raise RuntimeError("as where a device is lost")

        runner.forward = fails
        codes = set()
        until = time.monotonic() + 10
        while "engine_stalled" not in codes:  # what is said from then on, before the model is asked
            status, answer, _ = server.post("/generate", {"text": "x"})
            assert status == 503 and time.monotonic() < until
            codes.add(answer["error"]["code"])
        assert "engine_stopped" in codes
        assert "failed_steps_total" in server.get("/metrics")[1]
        runner.forward = forward
        while server.post("/generate", {"text": "x"})[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_step_that_fails_now_and_then_is_no_reason_to_stop() -> None:
    with running(limits={"stall_seconds": 0.4}) as server:
        runner = server.backend.core.runner
        forward, count = runner.forward, 0

        def sometimes(batch: Any) -> Any:
            nonlocal count
            count += 1
            if count % 2:
                raise RuntimeError("once")
            return forward(batch)

        runner.forward = sometimes
        until = time.monotonic() + 1.2
        statuses = []
        while time.monotonic() < until:
            statuses.append(server.post("/generate", {"text": "x", "sampling_params": {
                "max_new_tokens": 1}})[0])
        assert set(statuses) == {200, 503} and len(statuses) > 20
        assert server.get("/health")[0] == 200


METRICS = """num_running_reqs num_queue_reqs kv_cache_usage_perc prefix_cache_queries_total
prefix_cache_hits_total prompt_tokens_total generation_tokens_total forced_tokens_total
request_success_total aborted_total retracted_total rejected_total
time_to_first_token_seconds_bucket inter_token_latency_seconds_bucket
e2e_request_latency_seconds_bucket queue_time_seconds_bucket grammar_compilation_seconds_bucket
compile_pass_seconds_bucket worker_restarts_total http_requests_active
http_requests_total""".split()


PROGRAM = """program @p() {
  %p0 = prompt.root
  %p1 = prompt.append %p0, "x"
  %p2, %a: !text, %m = prompt.gen %p1 {name = "a", path = [0], max_tokens = 2}
  prompt.return %p2
}
"""


def test_metrics_have_the_names_of_other_engines(server: Running) -> None:
    server.post("/generate", {"text": "x", "stream": True,
                              "sampling_params": {"regex": "a{20}"}})
    assert server.post("/v1/programs", {"ir": PROGRAM, "rows": [{}]})[0] == 200
    server.post("/generate", {"text": "y"})
    text = server.get("/metrics")[1]
    for name in METRICS:
        assert f"sglc:{name}" in text, name
    assert 'finished_reason="constraint"' in text
    assert 'pass="eliminate-dead"' in text
    waited = next(line for line in text.splitlines() if "queue_time_seconds_sum" in line)
    assert 0 < float(waited.split()[1]) < 60
    assert "sglc:kv_cache_usage_perc{model_name=\"hash\"} 0.0" in text


def test_the_document_says_what_the_router_does(server: Running) -> None:
    status, found, _ = server.get("/openapi.json")
    assert status == 200 and found == document(False) and found["openapi"].startswith("3.1")
    described = {(m.upper(), p) for p, ops in found["paths"].items() for m in ops}
    assert described == {(r.method, r.path) for r in ROUTES}
    names = set(found["components"]["schemas"])
    refs = json.dumps(found).split('"#/components/schemas/')[1:]
    assert {r.partition('"')[0] for r in refs} <= names
    for method, path in described:
        assert send(server.url + path, {} if method == "POST" else None,
                    method=method)[0] not in (404, 405)
    assert "security" in document(True)["paths"]["/generate"]["post"]


def test_health_and_information(server: Running) -> None:
    assert server.get("/health_generate")[0] == 200
    info = server.get("/get_model_info")[1]
    assert info["model_path"] == "hash" and info["is_generation"] is True
    found = server.get("/get_server_info")[1]
    assert found["stats"]["kv_total"] == 65536 and found["settings"]["policy"] == "planned"
    server.post("/generate", {"text": "to be forgotten"})
    status, text, _ = server.get("/flush_cache")
    assert status == 200 and text.startswith("Cache flushed.\nPlease check")
    assert server.backend.stats().kv_cached == 0


def test_the_readmes_template_file(tmp_path: Any) -> None:
    path = tmp_path / "my_model_template.json"
    path.write_text(json.dumps({
        "name": "my_model", "system": "<|im_start|>system", "user": "<|im_start|>user",
        "assistant": "<|im_start|>assistant", "sep_style": "CHATML", "sep": "<|im_end|>",
        "stop_str": ["<|im_end|>", "<|im_start|>"]}))
    with running(chat_template=str(path)) as server, running() as plain:
        body = {"messages": [{"role": "system", "content": "Be brief."},
                             {"role": "user", "content": "Hi"}], "temperature": 0,
                "max_tokens": 12}
        one, two = (s.post("/v1/chat/completions", body)[1] for s in (server, plain))
        assert one["usage"]["prompt_tokens"] == two["usage"]["prompt_tokens"]
        assert one["choices"][0]["message"] == two["choices"][0]["message"]
    with running(chat_template="llama-2") as server:
        assert server.get("/get_model_info")[1]["chat_template"] == "llama-2-chat"
    path.write_text('{"name": "x", "sep_style": "NONE"}')
    with pytest.raises(SglcError):
        read_template(str(path))


def test_readme_curl(server: Running) -> None:
    import shutil
    import subprocess

    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    got = subprocess.run(
        ["curl", "-s", f"{server.url}/generate", "-H", "Content-Type: application/json", "-d",
         '{\n"text": "Once upon a time,",\n"sampling_params": {\n"max_new_tokens": 16,\n'
         '"temperature": 0\n}\n}'], capture_output=True, text=True, check=True)
    want = server.backend.generate("Once upon a time,", sampling={
        "max_new_tokens": 16, "temperature": 0})
    assert json.loads(got.stdout)["text"] == want.text
