"""What goes wrong, as HTTP: a status and the JSON that OpenAI's clients understand.

It knows sglc's error codes, but no routes and no requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglc.errors import SglcError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          429: "rate_limit_error"}

# What a client did wrong, by the code of the error; all other 0xx to 3xx are plain 400s.
_NAMES = {
    "SGLC005": "invalid_choices", "SGLC006": "invalid_regex", "SGLC008": "unsupported",
    "SGLC011": "invalid_schema", "SGLC201": "invalid_program", "SGLC202": "invalid_program",
    "SGLC501": "context_length_exceeded", "SGLC502": "context_length_exceeded",
    "SGLC505": "invalid_constraint", "SGLC507": "invalid_request",
}
_SHOWN = 2000  # characters of a message


class Problem(Exception):
    """An answer that is an error.  `param`: the field at fault; `code`: a stable name."""

    def __init__(self, status: int, message: str, *, code: str | None = None,
                 param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message[:_SHOWN].encode("utf-8", "replace").decode()
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error object, as OpenAI writes it."""
        kind = _TYPES.get(self.status) or (
            "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param,
                          "code": self.code}}


def problem_of(error: BaseException) -> Problem:
    """The answer for any exception.  What sglc did not raise on purpose says nothing but 500."""
    if isinstance(error, Problem):
        return error
    if not isinstance(error, SglcError):
        return Problem(500, "the server failed on this request", code="internal_error")
    d = error.diagnostic
    message = f"{d.code} {d.what}" + (f" ({d.why})" if d.why else "")
    if d.code in _NAMES or d.code < "SGLC400":
        return Problem(400, message, code=_NAMES.get(d.code, "invalid_request"))
    if d.code == "SGLC503":
        return Problem(503, message, code="engine_stopped", headers={"Retry-After": "1"})
    if d.code == "SGLC506":
        return Problem(503, message, code="cancelled")
    return Problem(500, message, code="internal_error")
