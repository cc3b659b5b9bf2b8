"""Prompts, with and without token ids, are chains: each is another one with a span behind it."""

from __future__ import annotations

from typing import Any


def spans_since(prompt: Any, base: Any = None) -> list[Any]:
    """The spans of a prompt in order, from the start or from `base`, which it must extend.

    ValueError if it does not.
    """
    out: list[Any] = []
    node = prompt
    while node is not None and node is not base:
        if node.span is not None:
            out.append(node.span)
        node = node.parent
    if node is None and base is not None and base.parent is not None:
        raise ValueError("the prompt does not extend the given base")
    out.reverse()
    return out
