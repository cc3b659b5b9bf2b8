"""Constrained decoding: from regexes, choices, types, schemas and grammars to token masks.

`compile` and its kin are imported when first used; importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglc.grammar.compiler import compile
    from sglc.grammar.constraint import Constraint
    from sglc.grammar.dtypes import dtype_regex
    from sglc.grammar.schema import schema_text, value_parser
    from sglc.grammar.schema_regex import build_regex_from_object

_HOMES = {
    "Constraint": "constraint",
    "build_regex_from_object": "schema_regex",
    "compile": "compiler",
    "dtype_regex": "dtypes",
    "schema_text": "schema",
    "value_parser": "schema",
}

__all__ = ["Constraint", "build_regex_from_object", "compile", "dtype_regex", "schema_text",
           "value_parser"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
