"""Copies of plain data, to compare with later, or what is in containers."""

from __future__ import annotations

from typing import Any


def plain_copy(value: Any) -> Any:
    """A copy of plain containers; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(plain_copy(v) for v in value)
    if type(value) is dict:
        return {k: plain_copy(v) for k, v in value.items()}
    if type(value) is set:
        return set(value)
    return value


def contents(value: Any) -> Any:
    """What is in a container now, to compare with: other objects by identity."""
    if type(value) in (list, tuple):
        return (type(value).__name__, *map(contents, value))
    if type(value) is dict:
        return ("dict", *((contents(k), contents(v)) for k, v in value.items()))
    if value is None or type(value) in (str, int, float, bool):
        return (type(value).__name__, repr(value))
    return id(value)
