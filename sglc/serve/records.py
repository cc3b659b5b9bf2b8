"""Structured logs: one line a request, as JSON or as text.  Never a word of a prompt.

Of an unexpected exception only its type and frames are noted: its message may quote the request.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

logger = logging.getLogger("sglc.serve")


class Records:
    """Writes records to the logger `sglc.serve`, whose handlers are the user's."""

    def __init__(self, form: str = "text") -> None:
        self.form = form

    def write(self, event: str, level: int = logging.INFO, **fields: Any) -> None:
        """One record; None values are left out."""
        if not logger.isEnabledFor(level):
            return
        known = {k: v for k, v in fields.items() if v is not None}
        if self.form == "json":
            text = json.dumps({"ts": round(time.time(), 3),
                               "level": logging.getLevelName(level).lower(), "event": event,
                               **known})
        else:
            text = " ".join([event, *[f"{k}={v}" for k, v in known.items()]])
        logger.log(level, "%s", text)

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """An exception that should not have been."""
        frames = [f"{f.filename.rpartition('/')[2]}:{f.lineno}:{f.name}"
                  for f in traceback.extract_tb(error.__traceback__)[-6:]]
        self.write(event, logging.ERROR, error=type(error).__name__, frames=frames, **fields)


def log_to_stderr(level: str) -> None:
    """What `sglc serve` does with its own records."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
