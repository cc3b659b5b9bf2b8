"""Running the rows of a batch: requests over HTTP, programs on a backend.

What is wrong with a row is noted with it.  What is wrong with the server or the engine ends the
batch instead: its rows would fail one after the other, and are better run again later.
"""

from __future__ import annotations

import argparse
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from time import monotonic
from typing import Any

from sglc.backends.daemons import DaemonPool
from sglc.backends.http_json import HttpJson
from sglc.errors import ApiError, Cancelled, LanguageError, SglcError
from sglc.serve.batch_rows import RequestRow
from sglc.serve.options import ServeOptions

Note = Callable[[int, bool, Any], None]  # row, whether it went well, what it came to

_OURS = (401, 403, 429, 503)  # statuses that say nothing of the row
_STOPPED = "SGLC503"
_PATIENCE, _PAUSE = 600.0, 1.0  # seconds with a server whose queue is full, and between two tries
_HERE, _THERE = 4096, 200  # rows of a program at a time, in this process and on a server


@contextmanager
def server(options: argparse.Namespace) -> Iterator[HttpJson]:
    """The server of `--url`, or one in this process, for this batch alone."""
    if options.url is not None:
        http = HttpJson(options.url, api_key=options.api_key, connections=options.concurrency)
        try:
            yield http
        finally:
            http.close()
        return
    try:
        from sglc.serve.opening import open_service
        from sglc.serve.run import BackgroundServer
    except ImportError as error:
        raise LanguageError("SGLC008", "requests need the 'serve' extra", why=str(error),
                            fixes=("pip install 'sglc[local,serve]'", "give --program",
                                   "give --url")) from None
    key = secrets.token_urlsafe(16)
    day = 86_400.0
    with backend(options) as engine:
        running = BackgroundServer(open_service(ServeOptions(
            model=options.model, port=0, served_model_name=options.served_model_name,
            api_keys=(key,), max_sequences=1 << 20, request_seconds=day, max_body=64 << 20),
            engine))
        http = HttpJson(running.url, api_key=key, connections=options.concurrency, timeout=day)
        try:
            yield http
        finally:
            http.close()
            running.stop()


@contextmanager
def backend(options: argparse.Namespace) -> Iterator[Any]:
    """The engine of `--model`, or the server of `--url`."""
    if options.url is not None:
        from sglc.backends.remote import RuntimeEndpoint

        found: Any = RuntimeEndpoint(options.url, api_key=options.api_key,
                                     max_concurrent=options.concurrency)
    else:
        from sglc.serve.engines import open_backend

        found = open_backend(ServeOptions(model=options.model), batches=True)
    with found:
        yield found


# -- requests ---------------------------------------------------------------------------------
def run_requests(http: HttpJson, rows: Sequence[RequestRow], left: Sequence[int],
                 concurrency: int, note: Note) -> None:
    """Send the rows of these numbers; `note` is called in this thread.  Raises ApiError if the
    server cannot go on."""
    pool = DaemonPool(concurrency, "sglc-batch")
    stop = threading.Event()
    under_way: set[Future[tuple[int, bool, Any]]] = set()
    try:
        for number in left:
            if len(under_way) >= 2 * concurrency:
                ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in ended:
                    note(*future.result())
            under_way.add(pool.submit(_ask, http, number, rows[number], stop))
        while under_way:
            ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                note(*future.result())
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _ask(http: HttpJson, number: int, row: RequestRow,
         stop: threading.Event) -> tuple[int, bool, Any]:
    until = monotonic() + _PATIENCE
    status, body = http.answer("POST", row.url, row.body)
    while status == 429 and monotonic() < until and not stop.wait(_PAUSE):
        status, body = http.answer("POST", row.url, row.body)  # others keep the server busy
    if status in _OURS:
        error = ApiError("SGLC509", f"{http.url} answered with status {status}",
                         why=str(body)[:300], fixes=("run the same command again later",))
        error.status = status
        raise error
    name = body.get("id") if isinstance(body, Mapping) else None
    return number, status == 200, {
        "id": f"batch_req_{number}", "custom_id": row.custom_id, "response": {
            "status_code": status, "request_id": name, "body": body}, "error": None}


# -- programs ---------------------------------------------------------------------------------
def run_program(program: Any, rows: Sequence[Mapping[str, Any]], left: Sequence[int], note: Note,
                *, backend: Any, **options: Any) -> None:
    """Run the rows of these numbers; stops early where it is interrupted.  Raises SglcError if
    the backend cannot go on."""
    size = _THERE if hasattr(backend, "start_program") else _HERE
    for at in range(0, len(left), size):
        numbers = left[at:at + size]
        ended = 0

        def on_row(index: int, state: Any, numbers: Sequence[int] = numbers) -> None:
            nonlocal ended
            ended += 1
            note(numbers[index], *_outcome(numbers[index], state))

        program.each_row([rows[n] for n in numbers], numbers, on_row, backend=backend, **options)
        if ended < len(numbers):
            return


def _outcome(number: int, state: Any) -> tuple[bool, dict[str, Any]]:
    """Whether a run went well, and what it came to, as plain data."""
    error = state.error()
    if error is None:
        return True, {
            "row": number, "variables": {str(n): _plain(state[n]) for n in state.variable_names()},
            "returned": _plain(state.ret_value), "text": state.text(), "error": None}
    if isinstance(error, Cancelled) or (isinstance(error, ApiError) and error.status in (
            None, *_OURS)):
        raise error
    code = error.diagnostic.code if isinstance(error, SglcError) else None
    if code == _STOPPED:
        raise error
    return False, {"row": number, "error": {"type": type(error).__name__, "code": code,
                                            "message": str(error)}}


def _plain(value: Any) -> Any:
    """JSON data; what has no JSON form as text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump())
    return str(value)
