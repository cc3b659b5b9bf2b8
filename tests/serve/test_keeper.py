"""`sglc serve --restart`: a server that dies is there again, and dies with its parent."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serve.servers import process, send

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(),
                                reason="children are looked up in /proc")


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = [line for task in Path(f"/proc/{pid}/task").iterdir()
             for line in (task / "children").read_text().split()]
    return [int(n) for n in found]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition: Any, seconds: float = 20.0) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds
        time.sleep(0.02)
    return time.monotonic() - began


def answers(url: str) -> bool:
    """Whether a request is answered; it waits for a server that is being started."""
    try:
        return send(url + "/generate", {"text": "x", "sampling_params": {
            "max_new_tokens": 2}})[0] == 200
    except OSError:
        return False


@pytest.mark.slow  # quick: test_custody.py
def test_a_killed_server_is_there_again() -> None:
    with process("--restart") as (parent, url):
        (child,) = children(parent.pid)
        assert answers(url)
        long = {"text": "x", "sampling_params": {"max_new_tokens": 60_000, "ignore_eos": True}}
        with ThreadPoolExecutor() as pool:
            under_way = pool.submit(send, url + "/generate", long)
            until(lambda: 'http_requests_active{model_name="hash"} 2.0' in send(
                url + "/metrics")[1])
            os.kill(child, signal.SIGKILL)
            status, answer, headers = under_way.result(20)
        assert status == 503 and answer["error"]["code"] == "engine_restarted"
        assert int(headers["Retry-After"]) > 0
        until(lambda: not alive(child))
        assert until(lambda: answers(url)) < 10
        (again,) = children(parent.pid)
        assert again != child
        assert 'worker_restarts_total{model_name="hash"} 1.0' in send(url + "/metrics")[1]
        parent.send_signal(signal.SIGKILL)  # its child ends with it
        until(lambda: not alive(again))


@pytest.mark.slow
def test_it_stops_when_told() -> None:
    with process("--restart") as (parent, url):
        (child,) = children(parent.pid)
        assert answers(url)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(20) == 0 and not alive(child)


@pytest.mark.slow
def test_it_gives_up_when_it_must() -> None:
    flags = ("--restart", "--watchdog-timeout", "2", "--shutdown-timeout", "1")
    with process(*flags) as (parent, url):
        for number in (signal.SIGSTOP, signal.SIGKILL, signal.SIGKILL):
            until(lambda: answers(url))
            (child,) = children(parent.pid)
            os.kill(child, number)  # one that is stopped gives no sign of life
            until(lambda pid=child: not alive(pid))
        assert parent.wait(20) == 1
