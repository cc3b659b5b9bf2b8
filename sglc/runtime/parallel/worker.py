"""The process of one rank but the first: `python -m sglc.runtime.parallel.worker FD PARENT`.

It takes records (see `records.py`) from the socket FD until there are no more, and ends when the
process PARENT does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

import numpy as np

from sglc.errors import SglcError
from sglc.runtime.parallel.channel import Channel, from_text, hung_up, to_text
from sglc.runtime.parallel.records import (
    ALLOCATE,
    CLOSE,
    CONNECT,
    DONE,
    FAILED,
    ROOM,
    STEP,
    unpack_batch,
)


def main() -> None:
    """Serve until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides
    os.set_inheritable(int(sys.argv[1]), False)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    threading.Thread(target=_watch, args=(channel, int(sys.argv[2])), daemon=True).start()
    status = 0
    try:
        _serve(channel, json.loads(to_text(channel.receive()[1][0])))
    except (EOFError, BrokenPipeError):
        status = 1
    except Exception as error:
        status = 1
        _report(channel, error)
    # Not the interpreter's own end, which waits for what other ranks will never do.
    sys.stderr.flush()
    os._exit(status)


def _serve(channel: Channel, job: dict[str, Any]) -> None:
    import torch

    from sglc.runtime.parallel.opening import load_part

    torch.set_num_threads(job["threads"])
    runner, link = load_part(job)
    channel.send(DONE, runner.facts() if job["on_device"] else np.zeros(0))
    while True:
        kind, arrays = channel.receive()
        if kind == STEP:
            if job["on_device"]:
                runner.follow(arrays)
            else:
                runner.forward(unpack_batch(arrays))
        elif kind == CONNECT:
            link.connect(arrays[0].astype(np.uint8).tobytes())
            channel.send(DONE)
        elif kind == ALLOCATE:
            runner.allocate(int(arrays[0][0]))
            channel.send(DONE)
        elif kind == ROOM:
            channel.send(DONE, np.array([runner.room(int(arrays[0][0]) / 1e6)]))
        elif kind == CLOSE:
            return


def _report(channel: Channel, error: Exception) -> None:
    """Tell rank 0, which asks for it while the model is loaded, and the log otherwise."""
    import traceback

    code, what, why = "SGLC504", f"{type(error).__name__}: {error}", "in a worker process"
    if isinstance(error, SglcError):
        code, what, why = error.code, error.diagnostic.what, error.diagnostic.why
    else:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        channel.send(FAILED, *map(from_text, (code, what, why)))


def _watch(channel: Channel, parent: int) -> None:
    """End with the parent, whatever the other threads are doing."""
    while not hung_up([channel], 1.0) and os.getppid() == parent:
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
