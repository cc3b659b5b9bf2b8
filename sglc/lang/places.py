"""Where the user's code stands: the place that an error of something said earlier points to."""

from __future__ import annotations

import linecache
import sys

from sglc.errors import Place

_OURS = ("sglc.lang.", "sglc.trace.")


def calling_place() -> Place | None:
    """The innermost call that is not made by the language or the tracer; None if there is none.

    The same in a traced body as in the body as written: traced code keeps its places.
    """
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if not name.startswith(_OURS):
            code, line, at = frame.f_code, frame.f_lineno, frame.f_lasti // 2
            column = 1  # Python 3.10 has lines only
            if hasattr(code, "co_positions"):
                spots = list(code.co_positions())
                column = (spots[at][2] or 0) + 1 if at < len(spots) else 1
            source = linecache.getline(code.co_filename, line)
            if not source.isascii():  # Python counts bytes
                column = len(source.encode()[: column - 1].decode("utf-8", "replace")) + 1
            return Place(code.co_filename, line, column)
        frame = frame.f_back  # type: ignore[assignment]
    return None
