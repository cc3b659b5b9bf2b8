"""How many files, and so connections, the process may have open."""

from __future__ import annotations

import contextlib

_MOST = 4096  # connections, four times over: an engine and a keeper have files too


def allow_files() -> None:
    """Let this process open as many files as a server needs, or as it may."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST if hard == resource.RLIM_INFINITY else min(_MOST, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
