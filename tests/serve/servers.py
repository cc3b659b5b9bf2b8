"""Servers for tests: the hash model behind HTTP, in this process or in one of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sglc.serve.engines import open_backend
from sglc.serve.opening import open_service
from sglc.serve.options import ServeOptions
from sglc.serve.run import BackgroundServer
from sglc.serve.service import Service


@dataclass
class Running:
    """A server in this process."""

    url: str
    backend: Any
    service: Service
    server: BackgroundServer | None = None

    @property
    def open(self) -> int:
        """How many connections are open."""
        assert self.server is not None
        return int(self.server.server.connections.open)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        """(status, JSON or text, headers)."""
        return send(self.url + path, body, headers)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        return send(self.url + path, None, headers)

    def idle(self) -> bool:
        """Wait for the engine to come to rest; whether no KV is in use then."""
        rest = self.backend.core.wait_idle(20)
        self.backend.core.check()
        return bool(rest and self.backend.stats().kv_in_use == 0
                    and self.service.gate.inside == 0)


def send(url: str, body: Any = None, headers: dict[str, str] | None = None,
         method: str | None = None) -> Any:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {
        "Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            raw, status, got = response.read(), response.status, response.headers
    except urllib.error.HTTPError as error:
        raw, status, got = error.read(), error.code, error.headers
    text = raw.decode()
    try:
        return status, json.loads(text), got
    except ValueError:
        return status, text, got


def events(text: str) -> list[Any]:
    """The events of a stream, [DONE] included as text."""
    out = []
    for block in text.split("\n\n"):
        if block:
            assert block.startswith("data: "), block
            data = block[6:]
            out.append(data if data == "[DONE]" else json.loads(data))
    return out


@contextmanager
def running(limits: dict[str, Any] | None = None, **given: Any) -> Iterator[Running]:
    """A server with the hash model on a free port."""
    options = ServeOptions(**{"model": "hash", "port": 0, **given})
    backend = open_backend(options)
    service = open_service(options, backend)
    if limits:
        service.limits = replace(service.limits, **limits)
        service.gate.most = service.limits.sequences
    server = BackgroundServer(service)
    try:
        yield Running(server.url, backend, service, server)
    finally:
        server.stop()
        backend.close()


@contextmanager
def process(*flags: str, env: dict[str, str] | None = None) -> Iterator[tuple[Any, str]]:
    """`python -m sglc.launch_server --model hash` in a process; (the process, its URL).
    Its standard error is in the process's `log`."""
    log = tempfile.TemporaryFile("w+")
    child: Any = subprocess.Popen(
        [sys.executable, "-m", "sglc.launch_server", "--model-path", "hash", "--port", "0",
         *flags], stdout=subprocess.PIPE, stderr=log, text=True,
        env={**os.environ, "SGLC_API_KEY": "", "OMP_NUM_THREADS": "1", **(env or {})})
    try:
        child.log = log
        line = child.stdout.readline()
        assert " on http" in line, line
        yield child, line.split(" on ")[1].strip()
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.communicate()
        log.close()


def raw(url: str, data: bytes, timeout: float = 10.0) -> bytes:
    """What comes back for bytes that may be no HTTP."""
    import socket

    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as s:
        s.sendall(data)
        out = b""
        try:
            while piece := s.recv(65536):
                out += piece
        except (TimeoutError, ConnectionError):
            pass
    return out


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
