"""`--trace-file`: what the server did, as Chrome trace events (open in ui.perfetto.dev).

A bar for each request with its counts, and the KV pool over time.  No prompt text.  It ends where
it has become large, or cannot be written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from time import monotonic
from typing import Any

_log = logging.getLogger("sglc.serve")
_MOST = 256 << 20  # characters


class TraceFile:
    """Appends events to a JSON array; the file is whole after `close`, and readable before.

    most: how many characters it may have.
    """

    def __init__(self, path: str, most: int = _MOST) -> None:
        self._left = most
        self._file = open(path, "w", encoding="utf-8")
        self._file.write("[\n")
        self._began = monotonic()
        self._lock = threading.Lock()
        self._first = True
        self._lanes: list[float] = []  # when each lane is free

    def request(self, name: str, began: float, ended: float, **args: Any) -> None:
        """A bar from `began` to `ended` (`monotonic()` times)."""
        with self._lock:
            lane = next((i for i, free in enumerate(self._lanes) if free <= began), None)
            if lane is None:
                lane = len(self._lanes)
                self._lanes.append(0.0)
            self._lanes[lane] = ended
            self._write({"name": name, "ph": "X", "pid": 1, "tid": lane,
                         "ts": self._micros(began), "dur": max(1, round((ended - began) * 1e6)),
                         "args": {k: v for k, v in args.items() if v is not None}})

    def counter(self, name: str, values: dict[str, float]) -> None:
        """Numbers as they are now."""
        with self._lock:
            self._write({"name": name, "ph": "C", "pid": 1, "ts": self._micros(monotonic()),
                         "args": values})

    def close(self) -> None:
        with self._lock:
            self._end()

    def _micros(self, moment: float) -> int:
        return round((moment - self._began) * 1e6)

    def _write(self, event: dict[str, Any]) -> None:
        if self._file.closed:
            return
        text = ("" if self._first else ",\n") + json.dumps(event)
        self._first = False
        self._left -= len(text)
        try:
            if self._left >= 0:
                self._file.write(text)
                self._file.flush()
                return
            _log.warning("the trace file is full")
        except OSError as error:
            _log.warning("the trace file cannot be written: %s", error.strerror)
        self._end()

    def _end(self) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.write("\n]\n")
            with contextlib.suppress(OSError):
                self._file.close()
