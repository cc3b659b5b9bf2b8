"""`sglc serve --restart`: the server in a child process, started again when it dies.

The parent holds the listening socket, so that connections made meanwhile wait for the next child,
and imports no model code.  It gives up after `_CRASHES` deaths within `_WITHIN` seconds, or if the
child never comes to serve.  A child that gives no sign of life for too long is killed.  Clients
of a child that died are told so (`custody.py`).  Either one's death ends the other.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from dataclasses import asdict
from time import monotonic
from typing import Any

from sglc.errors import LanguageError, SglcError
from sglc.serve.custody import Custody, Notes
from sglc.serve.files import allow_files
from sglc.serve.options import ServeOptions

_CRASHES, _WITHIN = 3, 300.0
_LOADING = 1800.0  # seconds until a child must serve
_READY = "ready "


class Keeper:
    """Keeps one server running until it is told to stop."""

    def __init__(self, options: ServeOptions) -> None:
        if os.name != "posix":
            raise LanguageError("SGLC008", "--restart is not supported here",
                                why="a socket is passed on as Unix does", fixes=("leave it out",))
        self.options = options
        self.restarts = 0
        self._child: Any = None
        self._custody = Custody()
        self._signals = 0
        self._said = False

    def run(self) -> int:
        """The exit code: the child's when it was told to stop or never served, else 1."""
        family = socket.AF_INET6 if ":" in self.options.host else socket.AF_INET
        host = self.options.host.strip("[]")
        try:
            listening = socket.create_server((host, self.options.port), family=family, backlog=512)
        except OSError as error:
            raise LanguageError("SGLC004", f"cannot listen on {host}:{self.options.port}",
                                why=str(error), fixes=("choose another --port",)) from None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        allow_files()  # it holds the clients' connections too
        died: deque[float] = deque(maxlen=_CRASHES)
        with listening:
            while True:
                served = self._serve(listening)
                code = self._child.wait()
                self._custody.settle()
                if self._signals or not served:
                    return int(code)
                died.append(monotonic())
                if len(died) == _CRASHES and died[-1] - died[0] < _WITHIN:
                    print(f"sglc: the server died {_CRASHES} times; giving up", file=sys.stderr)
                    return 1
                self.restarts += 1
                print(f"sglc: the server died ({_how(code)}); starting it again",
                      file=sys.stderr, flush=True)

    def _signalled(self, number: int, frame: Any) -> None:
        self._signals += 1
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _serve(self, listening: socket.socket) -> bool:
        """Start a child, and watch it until it dies; whether it came to serve."""
        fd, noted = listening.fileno(), self._custody.descriptors
        child: Any = subprocess.Popen(
            [sys.executable, "-m", "sglc.serve.keeper"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, pass_fds=(fd, *noted))
        self._child = child
        if self._signals:  # it came before there was a child to pass it on to
            child.terminate()
        try:
            child.stdin.write(json.dumps({"options": asdict(self.options), "fd": fd,
                                          "notes": noted, "restarts": self.restarts}) + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return False
        served, patience = False, _LOADING
        while True:
            there = select.select([child.stdout, self._custody], [], [], patience)[0]
            self._custody.look()
            if not there:
                child.kill()
                return served
            if child.stdout not in there:
                continue
            line = os.read(child.stdout.fileno(), 4096).decode()
            if not line:
                return served
            if _READY in line:
                served = True
                patience = self.options.stall_seconds + self.options.drain_seconds
                self._say(line.partition(_READY)[2].splitlines()[0])

    def _say(self, text: str) -> None:
        if not self._said:
            self._said = True
            print(text, flush=True)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# -- in the child -----------------------------------------------------------------------------
def main() -> int:
    """Serve as the parent says on standard input; its end is the parent's."""
    from sglc.serve.run import serve

    given = json.loads(sys.stdin.readline())
    said = given["options"]
    options = ServeOptions(**{**said, "api_keys": tuple(said["api_keys"])})
    threading.Thread(target=_end_with_parent, name="sglc-parent", daemon=True).start()
    try:
        return serve(options, socket.socket(fileno=given["fd"]), given["restarts"],
                     lambda text: print(_READY + text if text else "", flush=True),
                     Notes(*given["notes"]))
    except SglcError as error:
        print(error, file=sys.stderr)
        return 1


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
