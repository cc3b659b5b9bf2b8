"""What tests of worker processes share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

NOTICE_SECONDS = 5.0  # until the end of a process has to be noticed


def gone(pids: Sequence[int]) -> bool:
    """Whether all these processes end in that time; one that only its parent still has to ask how
    it ended has."""
    until = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < until:
        if not any(map(_runs, pids)):
            return True
        time.sleep(0.02)
    return False


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False
