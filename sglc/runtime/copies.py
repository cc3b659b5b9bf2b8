"""Copies of plain data, to compare with later."""

from __future__ import annotations

from typing import Any


def plain_copy(value: Any) -> Any:
    """A copy of plain containers; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(plain_copy(v) for v in value)
    if type(value) is dict:
        return {k: plain_copy(v) for k, v in value.items()}
    return value
