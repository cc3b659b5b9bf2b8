"""Which backend runs a program when none is named."""

from __future__ import annotations

import threading
from typing import Any

from sglc.errors import LanguageError


class Defaults:
    """Holds the default backend; opens the default engine at the first run that needs one."""

    def __init__(self) -> None:
        self._backend: Any = None
        self._lock = threading.Lock()

    def set(self, backend: Any) -> None:
        """Make `backend` the default (None: open the default engine when needed)."""
        if backend is not None:
            check_backend(backend)
        self._backend = backend

    def current(self) -> Any:
        """The default backend if one is set or open, else None."""
        return self._backend

    def resolve(self, backend: Any) -> Any:
        """`backend`, or the default one, or the default model opened now."""
        if backend is not None:
            check_backend(backend)
            return backend
        with self._lock:
            if self._backend is None:
                from sglc.backends.engine import Engine

                self._backend = Engine()
            return self._backend


def check_backend(backend: Any) -> None:
    """Raise LanguageError SGLC010 unless `backend` can run programs."""
    if not hasattr(backend, "submit") or not hasattr(backend, "tokenizer"):
        raise LanguageError("SGLC010", f"{backend!r} is not a backend"[:200],
                            fixes=["a model in this process is sglc.Engine(path), a remote one "
                                   "sglc.OpenAI(name) and so on, one for tests sglc.HashModel()"])
