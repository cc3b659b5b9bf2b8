"""Requests of JSON over HTTP with the standard library, for servers of `/generate`.

Connections are kept per thread.  A request is tried again where it cannot have had an effect: the
server said 429 or 503, or the connection was refused.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from sglc.errors import ApiError, LanguageError

_LINE = 64 << 20  # bytes of one line of a stream


class HttpJson:
    """One server.

    api_key: sent as a bearer token and as X-API-Key.  verify: a CA file, or False to trust any
    certificate.  retries: how often a refused request is tried again.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None,
                 verify: str | bool | None = None, timeout: float = 600.0,
                 retries: int = 4) -> None:
        parts = urlsplit(base_url if "//" in base_url else f"http://{base_url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LanguageError("SGLC004", f"{base_url!r} is no http URL")
        self.url = base_url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self._parts = parts
        self._local = threading.local()
        self._headers = {"Content-Type": "application/json", "Accept": "*/*"}
        if api_key:
            self._headers |= {"Authorization": f"Bearer {api_key}", "X-API-Key": api_key}
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(
                cafile=verify if isinstance(verify, str) else None)
            if verify is False:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON (its text where it is none).  Raises ApiError SGLC509."""
        response = self._send(method, path, body)
        data = response.read()
        if response.getheader("Connection", "").lower() == "close":
            self._drop()
        try:
            return json.loads(data)
        except ValueError:
            return data.decode("utf-8", "replace")

    def events(self, path: str, body: Any) -> Iterator[Any]:
        """The JSON of a stream's events.  Raises ApiError if it ends too early."""
        response = self._send("POST", path, body)
        ended = False
        try:
            while line := response.readline(_LINE):
                if not line.startswith(b"data:"):
                    continue
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    ended = True
                    break
                data = json.loads(payload)
                if isinstance(data, dict) and "error" in data:
                    raise _error(f"{self.url} broke a stream off", 200, payload)
                yield data
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _error(f"a stream of {self.url} broke off", None, repr(error)) from error
        finally:
            self._drop()
        if not ended:
            raise _error(f"a stream of {self.url} ended too early", None, "")

    def _send(self, method: str, path: str, body: Any) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            fresh = getattr(self._local, "connection", None) is None
            try:
                connection = self._connection()
                connection.request(method, self._parts.path.rstrip("/") + path, data,
                                   self._headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                again = not fresh or isinstance(error, ConnectionRefusedError)
                if attempt < self.retries and again:
                    if fresh:
                        time.sleep(0.1 * 2 ** attempt)
                    continue
                if isinstance(error, (TimeoutError, socket.timeout)):
                    raise _error(f"{self.url} did not answer within {self.timeout:g} s", None,
                                 "") from error
                raise _error(f"the connection to {self.url} failed", None,
                             f"{type(error).__name__}: {error}") from error
            if response.status == 200:
                return response
            text = response.read()
            self._drop()
            if response.status in (429, 503) and attempt < self.retries:
                time.sleep(_wait(response.getheader("Retry-After"), attempt))
                continue
            raise _error(f"{self.url}{path} answered with status {response.status}",
                         response.status, text)
        raise AssertionError("unreachable")

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host = self._parts.hostname or ""
            if self._tls is not None:
                found = http.client.HTTPSConnection(host, self._parts.port,
                                                    timeout=self.timeout, context=self._tls)
            else:
                found = http.client.HTTPConnection(host, self._parts.port, timeout=self.timeout)
            self._local.connection = found
        return found

    def _drop(self) -> None:
        found = getattr(self._local, "connection", None)
        if found is not None:
            found.close()
            self._local.connection = None


def _wait(said: str | None, attempt: int) -> float:
    try:
        return min(10.0, max(0.0, float(said or "")))
    except ValueError:
        return min(10.0, 0.2 * float(2 ** attempt))


def _error(what: str, status: int | None, text: bytes | str) -> ApiError:
    why = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    try:
        why = json.loads(why)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        pass
    error = ApiError("SGLC509", what, why=str(why)[:500])
    error.status = status
    return error
