"""What backends do with the vendors' packages: finding them, and their errors in our words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from sglc.backends.api.asking import api_error
from sglc.errors import ApiError, LanguageError


def import_sdk(module: str, extra: str) -> Any:
    """The vendor's package; LanguageError SGLC010 that names the extra if it is not there."""
    try:
        return import_module(module)
    except ImportError as error:
        raise LanguageError("SGLC010", f"this backend needs the '{extra}' extra", why=str(error),
                            fixes=(f"pip install 'sglc[{extra}]'",)) from None


_FIXES = {
    400: ("read what the server says above; the model may not take one of the options",),
    401: ("check the API key",), 403: ("check the API key and its rights",),
    404: ("check the model's name and base_url",),
    408: ("raise timeout=",),
    429: ("lower max_concurrent=", "raise max_retries=", "check the account's limits"),
    529: ("run again later", "raise max_retries="),
}


def problem(name: str, error: Exception) -> ApiError:
    """An exception of an SDK (after its own retries), or of reading an answer, as ApiError."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int):
        fixes = _FIXES.get(status, ("run again later", "raise max_retries=")
                           if status >= 500 else ())
        return api_error(f"{name} answered with status {status}", error, status=status,
                         fixes=fixes)
    kind = type(error).__name__
    if "Timeout" in kind:
        return api_error(f"{name} did not answer in time", error, fixes=("raise timeout=",))
    if any(word in kind for word in ("Connect", "Disconnect", "Protocol", "ReadError", "Payload")):
        return api_error(f"the connection to {name} failed", error,
                         fixes=("check base_url and the network", "raise max_retries="))
    if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, IndexError)):
        return api_error(f"the answer of {name} could not be read", error,
                         fixes=("check that base_url is a server with this API",))
    return api_error(f"the call of {name} failed", error)


@asynccontextmanager
async def closing(stream: Any) -> AsyncIterator[None]:
    """Closes a stream that is left before its end."""
    try:
        yield
    finally:
        close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
        if close is not None:
            await close()
