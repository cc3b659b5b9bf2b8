"""sglc: an ahead-of-time optimizing compiler for language-model programs.

`import sglc as sgl` is the idiom.  Names load on first use, so importing sglc costs little and
needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> (module, name there)
_NAMES: dict[str, tuple[str, str]] = {
    **{name: ("sglc.lang.program", name) for name in ("Program", "program")},
    "function": ("sglc.lang.program", "program"),
    **{name: ("sglc.lang.expressions", name) for name in (
        "bag", "gen", "gen_int", "gen_string", "select", "system", "user", "assistant",
        "system_begin", "system_end", "user_begin", "user_end", "assistant_begin",
        "assistant_end", "special", "image", "video", "separate_reasoning")},
    **{name: ("sglc.lang.api", name) for name in (
        "set_default_backend", "flush_cache", "get_server_info", "register_chat_template",
        "register_chat_template_matching_function", "get_chat_template",
        "get_chat_template_by_model_path")},
    "get_server_args": ("sglc.lang.api", "get_server_info"),
    **{name: ("sglc.lang.annotations", name) for name in ("host", "pure")},
    "ProgramState": ("sglc.lang.state", "ProgramState"),
    "Engine": ("sglc.backends.engine", "Engine"),
    "HashModel": ("sglc.backends.hash_model", "HashModel"),
    "RuntimeEndpoint": ("sglc.backends.remote", "RuntimeEndpoint"),
    "Runtime": ("sglc.serve.runtime", "Runtime"),
    "OpenAI": ("sglc.backends.api.openai", "OpenAI"),
    "Anthropic": ("sglc.backends.api.anthropic", "Anthropic"),
    "VertexAI": ("sglc.backends.api.gemini", "VertexAI"),
    "ChatTemplate": ("sglc.tokens.templates", "ChatTemplate"),
    **{name: ("sglc.errors", name) for name in ("SglcError", "SglcWarning", "Cancelled")},
    **{name: ("sglc.config", name) for name in (
        "REGEX_INT", "REGEX_FLOAT", "REGEX_BOOL", "REGEX_STR")},
}
_MODULES = ("errors", "grammar", "ir", "passes", "tokens")

if TYPE_CHECKING:
    from sglc.backends.api.anthropic import Anthropic
    from sglc.backends.api.gemini import VertexAI
    from sglc.backends.api.openai import OpenAI
    from sglc.backends.engine import Engine
    from sglc.backends.hash_model import HashModel
    from sglc.errors import Cancelled, SglcError, SglcWarning
    from sglc.lang.annotations import host, pure
    from sglc.lang.api import flush_cache, set_default_backend
    from sglc.lang.expressions import (
        assistant,
        assistant_begin,
        assistant_end,
        bag,
        gen,
        gen_int,
        gen_string,
        image,
        select,
        special,
        system,
        system_begin,
        system_end,
        user,
        user_begin,
        user_end,
    )
    from sglc.lang.program import Program, program
    from sglc.lang.program import program as function
    from sglc.lang.state import ProgramState


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module, attribute = _NAMES[name]
        value = getattr(import_module(module), attribute)
    elif name in _MODULES:
        value = import_module(f"sglc.{name}")
    else:
        # With the module given, Python's traceback says which name is near.
        raise AttributeError(f"module 'sglc' has no attribute {name!r}", name=name,
                             obj=sys.modules[__name__])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})


__all__ = [
    "Anthropic", "Cancelled", "Engine", "HashModel", "OpenAI", "Program", "ProgramState",
    "SglcError", "SglcWarning", "VertexAI",
    "__version__", "assistant", "assistant_begin", "assistant_end", "bag", "flush_cache",
    "function",
    "gen", "gen_int", "gen_string", "host", "image", "program", "pure", "select",
    "set_default_backend",
    "special",
    "system", "system_begin", "system_end", "user", "user_begin", "user_end",
]
