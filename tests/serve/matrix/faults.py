"""Rows 6 to 10: too little memory, crashes, shutdown, failing servers, killed batches."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.serve.matrix.row import Row
from tests.serve.random_llama import save_llama
from tests.serve.servers import process, running, send


def shutdown(clients: int = 32) -> Row:
    """Row 8: SIGTERM lets what runs finish and refuses what is new; a second one ends at once;
    what it started ends with it."""
    from tests.serve.test_keeper import alive, children

    with process("--shutdown-timeout", "60") as (child, url):
        done: list[int] = []
        body = {"text": "x", "sampling_params": {"max_new_tokens": 800, "ignore_eos": True}}

        def client() -> None:
            done.append(send(url + "/generate", body)[0])

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for t in threads:
            t.start()
        while f'http_requests_active{{model_name="hash"}} {clients + 1}.0' not in send(
                url + "/metrics")[1]:
            time.sleep(0.01)
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        refused = 0
        for _ in range(200):
            with contextlib.suppress(OSError):
                refused = send(url + "/generate", body)[0]
            if refused:
                break
        for t in threads:
            t.join()
        code = child.wait(60)
        seconds = time.monotonic() - began
    with process() as (child, url):
        thread = threading.Thread(target=lambda: _quiet(url, {"text": "x", "sampling_params": {
            "max_new_tokens": 60_000, "ignore_eos": True}}))
        thread.start()
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        at_once = time.monotonic()
        child.wait(10)
        at_once = time.monotonic() - at_once
        thread.join()
    with process() as (child, url):
        child.send_signal(signal.SIGINT)
        interrupted = child.wait(30)
    with process("--restart") as (parent, url):
        (served,) = children(parent.pid)
        parent.kill()
        began = time.monotonic()
        while alive(served) and time.monotonic() < began + 20:
            time.sleep(0.02)
        orphan = alive(served)
    finished = done.count(200)
    return Row(8, "shutdown", f"SIGTERM under {clients} in flight, a second one, SIGINT, the "
               "parent killed",
               f"{finished}/{clients} finished in {seconds:.1f} s, a new one got {refused}, exit "
               f"code {code}; a second signal ends in {at_once:.2f} s; SIGINT: exit code "
               f"{interrupted}; {int(orphan)} orphans",
               "all, <= 30 s, 503, 0; 0; 0",
               finished == clients and refused == 503 and code == 0 and seconds < 30
               and interrupted == 0 and not orphan)


def _quiet(url: str, body: Any) -> None:
    with contextlib.suppress(OSError):
        send(url + "/generate", body)


def retract(requests: int = 32) -> Row:
    """Row 6: a pool of a tenth of the demand gives what a large one gives."""
    texts = [f"number {i}: " + "word " * 30 for i in range(requests)]
    params = {"max_new_tokens": 200, "temperature": 0, "ignore_eos": True}
    demand = sum(len(t) + 200 for t in texts)

    def texts_of(**given: Any) -> tuple[list[str], Any, int]:
        with running(**given) as server:
            got: list[str] = [""] * requests

            def one(i: int) -> None:
                got[i] = server.post("/generate", {"text": texts[i], "sampling_params": params})[
                    1]["text"]

            threads = [threading.Thread(target=one, args=(i,)) for i in range(requests)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            status = server.post("/generate", {"text": "x" * 40_000})[0]
            return got, server.backend.stats() if server.idle() else None, status

    want, _, _ = texts_of()
    plain, stats, never = texts_of(kv_tokens=demand // 10)
    bold, sent_back, _ = texts_of(kv_tokens=demand // 10, policy="vllm-apc")
    same = sum(a == b for a, b in zip(want, plain, strict=True))
    bold_same = sum(a == b for a, b in zip(want, bold, strict=True))
    back = (stats.retractions + sent_back.retractions) if stats and sent_back else -1
    return Row(6, "memory", f"{requests} requests on a tenth of the KV they need, two policies",
               f"{same}/{requests} and {bold_same}/{requests} equal to those on enough, {back} "
               f"sent back, one that can never fit got {never}", "all equal, > 0 sent back, 400",
               same == bold_same == requests and back > 0 and never == 400)


def crash(times: int = 20, workers: int = 2) -> Row:
    """Row 7: a server whose process dies or stops (`--restart`), or that loses a part of its
    model, is there again; requests under way are told to come again, or do by themselves."""
    from tests.serve.test_keeper import alive, children

    slowest, orphans, kinds = 0.0, 0, ["SIGKILL", "SIGSTOP", "SIGABRT", "SIGSEGV"]
    said: list[str] = []
    shared = Path("/dev/shm")
    before = len(list(shared.iterdir())) if shared.exists() else 0
    done = 0
    while done < times:
        with process("--restart", "--watchdog-timeout", "2", "--shutdown-timeout", "1",
                     "--stream-interval", "50") as (parent, url):
            for _ in range(min(2, times - done)):  # the third death in a short time is the last
                (child,) = children(parent.pid)
                slowest = max(slowest, _clients(
                    url, said, child, getattr(signal, kinds[done % len(kinds)])))
                done += 1
            left = children(parent.pid)
            parent.send_signal(signal.SIGTERM)
            parent.wait(20)
            orphans += sum(alive(pid) for pid in left)
    for _ in range(workers):
        with tempfile.TemporaryDirectory() as folder, process(
                "--model-path", str(save_llama(Path(folder))), "--tp", "2", "--restart",
                "--shutdown-timeout", "1") as (parent, url):
            (child,) = children(parent.pid)
            (worker,) = children(child)
            os.kill(worker, signal.SIGKILL)
            while alive(child):  # it ends: without a part of the model it is of no use
                time.sleep(0.01)
            began = time.monotonic()
            _ask(url, said)
            slowest = max(slowest, time.monotonic() - began)
            left = [pid for c in children(parent.pid) for pid in (c, *children(c))]
            parent.send_signal(signal.SIGTERM)
            parent.wait(20)
            orphans += sum(alive(pid) for pid in (worker, *left))
    lost = sum(said.count(what) for what in ("lost", "ended as if whole"))
    after = len(list(shared.iterdir())) if shared.exists() else 0
    return Row(7, "crash", f"{times} deaths of the serving process ({', '.join(kinds)}), {workers} "
               "of a process of the model",
               f"answers again after at most {slowest:.1f} s; {said.count('answered')} requests "
               f"before and meanwhile answered, {said.count('told')} told to come again, streams: "
               f"{said.count('error event')} with an error event, {said.count('broken off')} "
               f"broken off; {lost} lost or as if whole, {orphans} orphans, "
               f"{max(0, after - before)} left in /dev/shm",
               "<= 10 s, most streams with an event, 0, 0, 0",
               slowest <= 10 and not lost and not orphans and after <= before
               and said.count("error event") >= said.count("broken off"))


def _clients(url: str, said: list[str], child: int, blow: int) -> float:
    """Clients before the blow and after; how long those after it waited."""
    from tests.serve.test_keeper import alive

    first = [threading.Thread(target=one, args=(url, said))
             for one in (_cut_stream, _cut_answer, _comes_again)]
    for t in first:
        t.start()
    time.sleep(0.4)
    os.kill(child, blow)
    while alive(child):
        time.sleep(0.01)
    began = time.monotonic()
    queued = [threading.Thread(target=_ask, args=(url, said)) for _ in range(4)]
    for t in queued:
        t.start()
    for t in queued:
        t.join()
    seconds = time.monotonic() - began
    for t in first:
        t.join()
    return seconds


def _ask(url: str, said: list[str]) -> None:
    from tests.serve.test_keeper import answers

    said.append("answered" if answers(url) else "lost")


_LONG = {"text": "x", "sampling_params": {"max_new_tokens": 60_000, "ignore_eos": True}}


def _cut_stream(url: str, said: list[str]) -> None:
    """What a client sees of a stream whose server dies."""
    try:
        text = str(send(url + "/v1/completions", {
            "prompt": "x", "max_tokens": 60_000, "ignore_eos": True, "stream": True})[1])
        said.append("error event" if "engine_restarted" in text[-400:] else (
            "ended as if whole"))
    except Exception:  # whichever way the connection ends
        said.append("broken off")


def _cut_answer(url: str, said: list[str]) -> None:
    """What a client sees that waits for an answer."""
    try:
        status, answer, headers = send(url + "/generate", _LONG)
        told = status == 503 and headers["Retry-After"] and (
            answer["error"]["code"] == "engine_restarted")
        said.append("told" if told else "ended as if whole")
    except OSError:
        said.append("lost")


def _comes_again(url: str, said: list[str]) -> None:
    """What a program's client sees, which comes again by itself."""
    import sglc

    with sglc.RuntimeEndpoint(url) as endpoint:
        try:
            text = endpoint.http.call("POST", "/generate", {"text": "y", "sampling_params": {
                "max_new_tokens": 2500, "ignore_eos": True, "temperature": 0}})["text"]
            said.append("answered" if text else "ended as if whole")
        except sglc.SglcError:
            said.append("lost")


# -- servers that fail -------------------------------------------------------------------------
_OK = {"text": "fine", "meta_info": {"prompt_tokens": 1, "completion_tokens": 1,
                                     "finish_reason": {"type": "stop"}, "id": "x"}}
_CHAT = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{
    "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


def answer(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
             "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Faulty:
    """A server that says to POST what `script` has, one entry a connection, the last one for ever;
    b"hang" and b"reset" are no answers."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                           if line.startswith(b"content-length")), 0)
            while len(body) < length:
                body += connection.recv(65536)
            if head.startswith(b"GET"):
                connection.sendall(answer(200, b'{"model_path": "m"}'))
                return
            said = self.script[min(self.asked, len(self.script) - 1)]
            self.asked += 1
            if said == b"hang":
                time.sleep(6)
            elif said == b"reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            else:
                with contextlib.suppress(OSError):
                    connection.sendall(said)

    def close(self) -> None:
        self._socket.close()


def backends() -> Row:
    """Row 9: nine faults of a server, to both kinds of backend: an answer or an error with a code,
    in time, and no text twice."""
    import sglc
    from sglc.errors import SglcError

    def good(kind: str) -> bytes:
        return answer(200, json.dumps(_OK if kind == "native" else _CHAT).encode())

    def half(kind: str) -> bytes:
        event = json.dumps({**_OK, "text": "once"} if kind == "native" else {
            "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
                {"index": 0, "delta": {"content": "once"}, "finish_reason": None}]})
        return (b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
                + f"data: {event}\n\n".encode())

    long = b"data: " + b"x" * (10 << 20)
    faults: dict[str, Callable[[str], list[bytes]]] = {
        "429 and Retry-After": lambda k: [answer(429, b"{}", "Retry-After: 1"), good(k)],
        "500 twice": lambda k: [answer(500, b"{}"), answer(500, b"{}"), good(k)],
        "a hang": lambda k: [b"hang"],
        "half a stream": lambda k: [half(k)],
        "bad JSON": lambda k: [answer(200, b'{"text": ')],
        "a wrong content type": lambda k: [answer(200, b"<html>", kind="text/html")],
        "a line of 10 MB": lambda k: [answer(200, long, kind="text/event-stream")],
        "reset connections": lambda k: [b"reset"],
        "an empty answer": lambda k: [b""],
    }

    @sglc.program
    def ask(s: Any) -> None:
        s += sglc.user("x") + sglc.assistant(sglc.gen("a", max_tokens=4))

    handled, slowest, bad = 0, 0.0, []
    for kind in ("native", "openai"):
        for name, script in faults.items():
            server = Faulty()
            backend: Any = sglc.RuntimeEndpoint(server.url, timeout=2.0) if kind == "native" else (
                sglc.OpenAI("m", base_url=server.url + "/v1", timeout=2.0, max_retries=2))
            with backend:
                server.script = script(kind)
                stream = name in ("half a stream", "a line of 10 MB")
                began, got = time.monotonic(), ""
                try:
                    state = ask.run(backend=backend, stream=stream)
                    if stream:
                        for piece in state.text_iter("a"):
                            got += piece
                    got = state["a"]
                except SglcError:
                    pass  # has a code
                except Exception as error:
                    bad.append(f"{kind}, {name}: {type(error).__name__}")
                    continue
                finally:
                    server.close()
                seconds = time.monotonic() - began
                slowest = max(slowest, seconds)
                ok = got in ("", "once", "fine") and seconds < 15 and server.asked <= 6
                handled += ok
                if not ok:
                    bad.append(f"{kind}, {name}: {got[:20]!r} in {seconds:.1f} s")
    total = 2 * len(faults)
    return Row(9, "backends", f"{len(faults)} faults of servers, native and OpenAI's API",
               f"{handled}/{total} handled, slowest {slowest:.1f} s {'; '.join(bad)}",
               "all, in time, with a code or an answer", handled == total)


def batch(kills: int = 20) -> Row:
    """Row 10: `run-batch` killed at random points of 500 rows."""
    from tests.serve.test_run_batch import killed_batch

    with tempfile.TemporaryDirectory() as folder:
        try:
            hit: Any = killed_batch(Path(folder), kills, 10, program=False)
            once = True
        except AssertionError as error:
            hit, once = f"{error}"[:200], False
    return Row(10, "batch", f"500 rows, kill -9 at {kills} random points",
               f"{hit} kills hit, {'500 rows exactly once' if once else 'NOT every row once'}",
               "500 exactly once", once and hit >= kills // 2)
