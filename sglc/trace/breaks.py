"""What ends a trace early."""

from __future__ import annotations

from sglc.errors import Diagnostic, Place


class GraphBreak(Exception):
    """The tracer must not go on: the program runs in the eager interpreter instead.

    Carries the diagnostic that says what, where and why.  `raises`: the program itself raises an
    error here, which the eager interpreter then raises where it belongs.
    """

    def __init__(self, code: str, what: str, *, place: Place | None = None, why: str = "",
                 fixes: tuple[str, ...] = (), raises: bool = False) -> None:
        self.raises = raises
        self.diagnostic = Diagnostic(
            code, what, place, why, "the program runs in the eager interpreter", fixes)
        super().__init__(str(self.diagnostic))


class PathEnd(BaseException):
    """The path ends in a `prompt.break`: the rest is traced when the value is known."""


class NotMergeable(Exception):
    """The arms of an `if` do something that cannot be merged: it is explored path by path."""
