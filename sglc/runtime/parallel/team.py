"""Rank 0's workers: starting them, telling them what to do, and noticing when one ends.

Workers are fresh interpreters that import sglc and nothing of the user's, so there is no
`__main__` to be imported again: it works in notebooks and in scripts from standard input.  They
end when rank 0's process does, however it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sglc.errors import CODES, EngineError, ModelError
from sglc.runtime.parallel.channel import Channel, from_text, hung_up, to_text
from sglc.runtime.parallel.group import Link
from sglc.runtime.parallel.records import CLOSE, CONNECT, DONE, FAILED, JOB

_ROOT = Path(__file__).resolve().parents[3]  # where the package sglc lies
_LOOK_SECONDS = 0.5  # between looks at processes, besides what their sockets say
_NOTICE_SECONDS = 2.0  # from an error of a step to the end of the worker that was its reason
_CLOSE_SECONDS = 5.0


class Team:
    """The workers of ranks 1 to `size` - 1; `error` is there once one of them has ended.

    job: what `worker.py` needs to know, but the rank.  Calls may come from any one thread at a
    time, `close` from any.
    """

    def __init__(self, link: Link, job: dict[str, Any]) -> None:
        if os.name != "posix" or not sys.executable:
            raise ModelError("SGLC504", "a model cannot be spread over processes here",
                             why="it needs POSIX and a Python interpreter to start",
                             fixes=("use tp=1",))
        self.error: EngineError | None = None
        self._link = link
        self._closed = False
        self._over = threading.Event()  # closed, or a worker has ended
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[Channel] = []
        self._watcher = threading.Thread(target=self._watch, name="sglc-ranks", daemon=True)
        try:
            for rank in range(1, link.size):
                self._start(rank)
                self._channels[-1].send(JOB, from_text(json.dumps({**job, "rank": rank})))
        except BaseException:
            self.close(kill=True)
            raise
        self._watcher.start()

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process in self._processes]

    def connect(self) -> None:
        """Connect all ranks.  Raises what a worker had to say if it could not."""
        address = self._link.address()
        self.tell(CONNECT, np.frombuffer(address, np.uint8))
        with self.guard():
            self._link.connect(address)
        self.answers()

    def tell(self, kind: int, *arrays: np.ndarray) -> None:
        """The same record to every worker.  Raises EngineError (SGLC503) if one has ended."""
        self.check()
        with self.guard():
            for channel in self._channels:
                channel.send(kind, *arrays)

    def answers(self) -> list[list[np.ndarray]]:
        """One answer of each worker.  Raises the error that is one, or EngineError (SGLC503) if
        one has ended."""
        out = []
        for channel in self._channels:
            with self.guard():
                kind, arrays = channel.receive()
            if kind == FAILED:
                raise _told(arrays)
            assert kind == DONE
            out.append(arrays)
        return out

    def check(self) -> None:
        """Raises EngineError (SGLC503) if a worker has ended."""
        if self.error is not None:
            raise EngineError("SGLC503", self.error.diagnostic.what, why=self.error.diagnostic.why)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """For what ranks do together: after an error in it they are no team any more."""
        try:
            yield
        except Exception as error:
            self._over.wait(_NOTICE_SECONDS)  # the reason may be a worker's end
            self._fail(f"rank 0 failed: {type(error).__name__}: {error}")
            self.check()

    def close(self, kill: bool = False) -> None:
        """End the workers, at once if they may be killed, and wait for them.  Idempotent."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._over.set()
        for channel, process in zip(self._channels, self._processes, strict=True):
            if kill:
                process.kill()
            else:
                with contextlib.suppress(OSError):
                    channel.send(CLOSE)
        self._link.close()
        until = time.monotonic() + _CLOSE_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watcher.is_alive() and self._watcher is not threading.current_thread():
            self._watcher.join(_CLOSE_SECONDS)
        for channel in self._channels:
            channel.close()

    # -- processes ---------------------------------------------------------------------------

    def _start(self, rank: int) -> None:
        root = str(_ROOT)
        paths = [root, *(os.path.abspath(p) for p in sys.path if p)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
                       "TQDM_DISABLE": "1"}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._processes.append(subprocess.Popen(
                    [sys.executable, "-m", "sglc.runtime.parallel.worker", str(theirs.fileno()),
                     str(os.getpid())],
                    cwd=root, env=environment, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)))
            except OSError as error:
                ours.close()
                raise ModelError("SGLC504", f"rank {rank} of the model cannot be started",
                                 why=str(error)) from error
        self._channels.append(Channel(ours))

    def _watch(self) -> None:
        """Until the end: has a worker ended?"""
        while not self._closed:
            hung = hung_up(self._channels, _LOOK_SECONDS)
            if self._closed:
                return
            if hung:
                # Its process ends a moment after its socket; others may end because of it.
                time.sleep(0.05)
            ended = [(status >= 0, rank, abs(status)) for rank, status in enumerate(
                [process.poll() for process in self._processes], 1) if status is not None]
            if ended:  # by a signal first: the others may have ended because of it
                by_itself, rank, status = min(ended)
                how = "exit status" if by_itself else "signal"
                self._fail(f"the process of rank {rank} ended ({how} {status})")
                return

    def _fail(self, why: str) -> None:
        """Remember the first reason, end all workers and whatever waits for them."""
        with self._lock:
            if self.error is not None or self._closed:
                if self.error is None:
                    self.error = EngineError("SGLC503", "the engine was closed")
                return
            self.error = EngineError("SGLC503", "a part of the model is lost", why=why)
        self._over.set()
        for process in self._processes:
            process.kill()
        self._link.abort()


def _told(arrays: list[np.ndarray]) -> Exception:
    """The error that a worker reports."""
    code, what, why = (to_text(a) for a in arrays)
    return ModelError(code if code in CODES else "SGLC504", what, why=why)
