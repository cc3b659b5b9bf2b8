"""Functions of the public surface that act on the default backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglc.backends.templates import registry
from sglc.lang.program import defaults
from sglc.tokens.templates import ChatTemplate


def set_default_backend(backend: Any) -> None:
    """Run programs on `backend` from now on (None: the default model, opened when needed)."""
    defaults.set(backend)


def flush_cache(backend: Any = None) -> None:
    """Forget the cached KV of a backend (the default one)."""
    backend = backend or defaults.current()
    if backend is not None:
        backend.flush_cache()


def get_server_info(backend: Any = None) -> dict[str, Any]:
    """The counters of a backend (the default one), by name; of a server, its settings too; empty
    if none is open."""
    from dataclasses import asdict

    backend = backend or defaults.current()
    own = getattr(backend, "get_server_info", None)
    if own is not None:
        return dict(own())
    return {} if backend is None else asdict(backend.stats())


def register_chat_template(template: ChatTemplate) -> None:
    """Make a chat template known by its name: `Engine(chat_template="name")`."""
    registry.register(template)


def register_chat_template_matching_function(
        match: Callable[[str], ChatTemplate | str | None]) -> Any:
    """Add a function from a model's path to its template; usable as a decorator."""
    registry.register_matching_function(match)
    return match


def get_chat_template(name: str) -> ChatTemplate:
    """The registered or built-in template of this name; TokenError SGLC311 if there is none."""
    return registry.get(name)


def get_chat_template_by_model_path(path: str) -> ChatTemplate:
    """What the matching functions choose for a model's path."""
    return registry.by_model_path(path)
