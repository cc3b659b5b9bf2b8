"""What a user declares about Python functions that programs call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

from sglc.errors import LanguageError
from sglc.trace.hosts import HostFacts

F = TypeVar("F", bound=Callable[..., Any])


def pure(fn: F) -> F:
    """Declare that a function has no effect and depends on its arguments alone.

    Calls of it in a program may then be made once where they are equal, not at all where nothing
    needs them, and only where needed.  What it returns must not be changed afterwards.
    """
    return host(fn, pure=True)


@overload
def host(fn: F, *, latency: float | None = None, pure: bool = False) -> F: ...
@overload
def host(fn: None = None, *, latency: float | None = None,
         pure: bool = False) -> Callable[[F], F]: ...


def host(fn: Any = None, *, latency: float | None = None, pure: bool = False) -> Any:
    """Declare facts about a function that programs call; also as `@sglc.host(latency=0.2)`.

    latency: how long a call takes, in seconds (for the planner).  pure: see `pure`.
    Raises LanguageError SGLC004 for a latency that is no number of seconds.
    """
    if latency is not None and (isinstance(latency, bool) or not isinstance(
            latency, (int, float)) or not 0 <= latency < float("inf")):
        raise LanguageError("SGLC004", f"latency={latency!r} is no number of seconds")
    if fn is None:
        return functools.partial(host, latency=latency, pure=pure)
    if not callable(fn):
        raise LanguageError("SGLC009", f"sglc.host declares facts of a function, not of {fn!r}")
    facts = HostFacts(pure, None if latency is None else float(latency))
    try:
        fn.__sglc_host__ = facts
        return fn
    except AttributeError:  # a builtin or a bound method
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        wrapper.__sglc_host__ = facts  # type: ignore[attr-defined]
        return wrapper
