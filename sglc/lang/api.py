"""Functions of the public surface that act on the default backend."""

from __future__ import annotations

from typing import Any

from sglc.lang.program import defaults


def set_default_backend(backend: Any) -> None:
    """Run programs on `backend` from now on (None: the default model, opened when needed)."""
    defaults.set(backend)


def flush_cache(backend: Any = None) -> None:
    """Forget the cached KV of a backend (the default one)."""
    backend = backend or defaults.current()
    if backend is not None:
        backend.flush_cache()


def get_server_info(backend: Any = None) -> dict[str, Any]:
    """The counters of a backend (the default one), by name; empty if none is open."""
    from dataclasses import asdict

    backend = backend or defaults.current()
    return {} if backend is None else asdict(backend.stats())
