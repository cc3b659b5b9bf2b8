"""Calls of a remote server that nobody waits for any more: they end here and there."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from sglc.backends.daemons import DaemonPool
from sglc.backends.http_json import HttpJson
from sglc.backends.remote import RuntimeEndpoint
from sglc.config import RunOptions
from sglc.errors import ApiError, Cancelled, EngineError
from tests.serve.matrix.faults import Faulty, answer
from tests.serve.servers import Running, running

LONG = RunOptions(max_tokens=3000, ignore_eos=True)


@pytest.fixture
def slow() -> Iterator[Running]:
    """A server that takes a minute for `LONG`."""
    with running() as server:
        runner = server.backend.core.runner
        forward = runner.forward

        def slowly(batch: Any) -> Any:
            time.sleep(0.02)
            return forward(batch)

        runner.forward = slowly
        yield server


def until(what: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def start(backend: RuntimeEndpoint, stream: bool) -> tuple[Any, Future[Any], list[str]]:
    """A long gen: its call, its outcome, and the pieces of its text so far."""
    outcome: Future[Any] = Future()
    pieces: list[str] = []
    call = backend.calls.start_gen(backend, backend.calls.empty_prompt(None).append("hello"), LONG,
                                   [0], None, outcome.set_result,
                                   on_text=pieces.append if stream else None)
    return call, outcome, pieces


@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_call_ends_on_the_server_too(slow: Running, stream: bool) -> None:
    with RuntimeEndpoint(slow.url, max_concurrent=1) as backend:
        call, outcome, pieces = start(backend, stream)
        assert until(lambda: slow.backend.core.load() == (1, 0) and bool(pieces or not stream))
        backend.cancel(call.requests)
        assert isinstance(outcome.result(5).error, Cancelled)
        assert slow.idle()  # it would have gone on for a minute
        said = len(pieces)
        assert backend.get_server_info()["model_path"]  # the connections are as good as before
        slow.backend.core.runner.forward = type(slow.backend.core.runner).forward.__get__(
            slow.backend.core.runner)
        assert not start(backend, stream)[1].result(20).error  # and so is its only thread
        assert len(pieces) == said


def test_closing_ends_all(slow: Running) -> None:
    backend = RuntimeEndpoint(slow.url)
    outcomes = [start(backend, stream)[1] for stream in (True, False)]
    program = backend.start_program([{"ir": PROGRAM, "rows": [{"x": "hello"}]}] * 3)
    assert program is not None
    assert until(lambda: slow.backend.core.load()[0] == 3)
    backend.close()
    assert slow.idle()
    for outcome in outcomes:
        assert isinstance(outcome.result(5).error, EngineError)
    with pytest.raises(ApiError):
        program[0].result(5)
    assert until(lambda: all(f.cancelled() for f in program[1:]))  # not sent any more


PROGRAM = """program @p(%x: !text) returns ("a") {
  %p0 = prompt.root
  %p1 = prompt.append %p0, %x
  %p2, %a: !text, %m = prompt.gen %p1 {name = "a", path = [0], max_tokens = 3000, \
ignore_eos = true}
  prompt.bind %a {name = "a"}
  prompt.return %p2
}
"""


def test_a_call_that_is_cut_is_not_made_again() -> None:
    server = Faulty()
    server.script = [b"hang", answer(200, b"{}")]
    http = HttpJson(server.url, timeout=60)
    cut = http.cut()
    threading.Timer(0.3, cut.make).start()
    began = time.monotonic()
    with pytest.raises(ApiError):
        http.call("POST", "/x", {}, cut)
    with pytest.raises(ApiError):
        http.call("POST", "/x", {}, cut)  # and none begins
    assert time.monotonic() - began < 5 and server.asked == 1
    assert http.call("POST", "/x", {}) == {}
    server.close()


def test_a_cut_leaves_the_call_that_has_its_connection_now() -> None:
    with running() as server:
        http = HttpJson(server.url, connections=1)
        first = http.cut()
        http.call("GET", "/health", cut=first)
        second = http.cut()
        events = http.events("/generate", {"text": "abc", "stream": True, "sampling_params": {
            "max_new_tokens": 50, "ignore_eos": True}}, second)
        next(events)
        first.make()
        assert list(events)[-1]["meta_info"]["completion_tokens"] == 50


def test_a_silent_server_does_not_keep_the_process() -> None:
    server = Faulty()
    server.script = [b"hang"]  # for 6 s, and as the connection is closed then, once more
    code = ("import time, sglc\n"
            "from sglc.config import RunOptions\n"
            f"backend = sglc.RuntimeEndpoint({server.url!r})\n"
            "prompt = backend.calls.empty_prompt(None).append('x')\n"
            "backend.calls.start_gen(backend, prompt, RunOptions(), [0], None, print)\n"
            "time.sleep(0.5)\n"
            "print('over', flush=True)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "over\n"
        began = time.monotonic()
        assert child.wait(30) == 0
    assert time.monotonic() - began < 3 and server.asked == 1
    server.close()


def test_the_pool_runs_what_it_is_given() -> None:
    pool = DaemonPool(3, "test")
    together = threading.Barrier(3)
    waiting = [pool.submit(together.wait, 5) for _ in range(3)]  # three threads
    assert sorted(f.result(5) for f in waiting) == [0, 1, 2]
    assert [f.result(5) for f in [pool.submit(pow, 2, n) for n in range(99)]] == [
        2 ** n for n in range(99)]
    assert isinstance(pool.submit(int, "x").exception(5), ValueError)
    hold = threading.Event()
    held = [pool.submit(hold.wait, 5) for _ in range(5)]
    assert until(lambda: all(f.running() for f in held[:3]))
    pool.shutdown(cancel_futures=True)
    assert [f.cancelled() for f in held[3:]] == [True, True]
    with pytest.raises(RuntimeError):
        pool.submit(int)
    hold.set()
    assert held[0].result(5)
    assert until(lambda: not named("test"))


def test_a_forgotten_pool_ends_its_threads() -> None:
    pool = DaemonPool(2, "forgotten")
    pool.submit(int).result(5)
    assert named("forgotten")
    del pool
    gc.collect()
    assert until(lambda: not named("forgotten"))


def named(name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith(f"{name}_")]
