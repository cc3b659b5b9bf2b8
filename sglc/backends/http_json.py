"""Requests of JSON over HTTP with urllib3, for servers of `/generate`.

Connections are kept and shared by threads.  A request is tried again where it cannot have had an
effect: the server said 429 or 503, no connection was made, or a kept connection turned out to be
closed.  A call can be ended from another thread (see `cuts.py`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from urllib3 import Retry, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse

from sglc.backends.cuts import CALL, Cut, CuttableManager
from sglc.errors import ApiError, LanguageError

_LINE = 64 << 20  # bytes of one line of a stream
_WAIT = 10.0  # seconds: the longest Retry-After that is kept to
_AGAIN = (429, 503)


class HttpJson:
    """One server.

    api_key: sent as a bearer token and as X-API-Key.  verify: a CA file, or False to trust any
    certificate.  timeout: seconds of silence.  retries: how often a request that had no effect is
    tried again.  connections: how many are kept.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None,
                 verify: str | bool | None = None, timeout: float = 600.0,
                 retries: int = 4, connections: int = 64) -> None:
        full = base_url if "//" in base_url else f"http://{base_url}"
        parts = urlsplit(full)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LanguageError("SGLC004", f"{base_url!r} is no http URL")
        self.url = base_url.rstrip("/")
        self.timeout = timeout
        self._base = full.rstrip("/")
        headers = {"Content-Type": "application/json", "Accept": "*/*"}
        if api_key:
            headers |= {"Authorization": f"Bearer {api_key}", "X-API-Key": api_key}
        tls: dict[str, Any] = {}
        if verify is False:
            tls = {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        elif isinstance(verify, str):
            tls = {"ca_certs": verify}
        self._lock = threading.Lock()
        self._under_way: set[Cut] = set()
        self._pool = CuttableManager(
            num_pools=1, maxsize=connections, headers=headers, timeout=Timeout(timeout),
            retries=_Tries(retries, read=1, status_forcelist=_AGAIN, allowed_methods=None,
                           backoff_factor=0.1, backoff_max=_WAIT, raise_on_status=False), **tls)

    def cut(self) -> Cut:
        """What ends a call that is given it."""
        return Cut(self._lock)

    def call(self, method: str, path: str, body: Any = None, cut: Cut | None = None) -> Any:
        """The answer's JSON (its text where it is none).  Raises ApiError SGLC509."""
        status, answer = self.answer(method, path, body, cut)
        if status != 200:
            raise _error(f"{self.url}{path} answered with status {status}", status, answer)
        return answer

    def answer(self, method: str, path: str, body: Any = None,
               cut: Cut | None = None) -> tuple[int, Any]:
        """(status, JSON or text), whatever the status.  Raises ApiError SGLC509 only where there
        is no answer."""
        with self._going(cut) as call:
            response = self._send(method, path, body, True, call)
        data = response.data
        try:
            return response.status, json.loads(data)
        except ValueError:
            return response.status, data.decode("utf-8", "replace")

    def events(self, path: str, body: Any, cut: Cut | None = None) -> Iterator[Any]:
        """The JSON of a stream's events.  Raises ApiError if it ends too early."""
        with self._going(cut) as call:
            response = self._send("POST", path, body, False, call)
            try:
                if response.status != 200:
                    raise _error(f"{self.url}{path} answered with status {response.status}",
                                 response.status, response.data.decode("utf-8", "replace"))
                for line in _lines(response):
                    if call.made:
                        break
                    if not line.startswith(b"data:"):
                        continue
                    payload = line[5:].strip()
                    if payload == b"[DONE]":
                        return
                    data = json.loads(payload)
                    if isinstance(data, dict) and "error" in data:
                        raise _error(f"{self.url} broke a stream off", 200, data)
                    yield data
            except (OSError, ValueError, HTTPError) as error:
                raise _error(f"a stream of {self.url} broke off", None, repr(error)) from error
            finally:
                response.close()
        raise _error(f"a stream of {self.url} ended too early", None, "")

    def close(self) -> None:
        """End the calls that go on, and close the kept connections."""
        with self._lock:
            calls = list(self._under_way)
        for call in calls:
            call.make()
        self._pool.clear()

    @contextmanager
    def _going(self, cut: Cut | None) -> Iterator[Cut]:
        """A call that `close` ends."""
        call = cut or self.cut()
        with self._lock:
            self._under_way.add(call)
        try:
            yield call
        finally:
            with self._lock:
                self._under_way.discard(call)

    def _send(self, method: str, path: str, body: Any, whole: bool,
              call: Cut) -> BaseHTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        token = CALL.set(call)
        try:
            return self._pool.request(method, self._base + path, body=data, redirect=False,
                                      preload_content=whole)
        except HTTPError as error:
            cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            if isinstance(cause, (ReadTimeoutError, ConnectTimeoutError)) and not isinstance(
                    cause, NewConnectionError):
                raise _error(f"{self.url} did not answer within {self.timeout:g} s", None,
                             "") from error
            raise _error(f"the connection to {self.url} failed", None,
                         f"{type(cause).__name__}: {cause}",
                         ("check that a server runs there; sglc serve starts one",)) from error
        finally:
            CALL.reset(token)


class _Tries(Retry):
    """A silent server is not asked again, nor where the call was cut, and none is waited for
    longer than `_WAIT`."""

    def increment(self, method: str | None = None, url: str | None = None,
                  response: BaseHTTPResponse | None = None, error: Exception | None = None,
                  *rest: Any, **more: Any) -> Any:
        call = CALL.get()
        if error is not None and (isinstance(error, ReadTimeoutError)
                                  or (call is not None and call.made)):
            raise error
        return super().increment(method, url, response, error, *rest, **more)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            found = super().get_retry_after(response)
        except HTTPError:  # no number and no date
            return None
        return None if found is None else min(found, _WAIT)


def _lines(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of an answer as they come; ValueError for one that does not end."""
    rest = b""
    for piece in response.stream(1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > _LINE:
            raise ValueError("a line of the stream is too long")
    if rest:
        yield rest


def _error(what: str, status: int | None, said: Any, fixes: tuple[str, ...] = ()) -> ApiError:
    why = said
    if isinstance(said, dict):
        inner = said.get("error")
        why = inner.get("message", said) if isinstance(inner, dict) else said
    error = ApiError("SGLC509", what, why=str(why)[:500], fixes=fixes)
    error.status = status
    return error
