"""In which order the parts of a bag stand, where that may be chosen.

The rule is one for the eager interpreter and for compiled runs, so that they agree.  It looks at
texts alone: what the batch's arguments hold is counted before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_DEPTH = 8  # how deep containers of arguments are looked into


def text_counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """For each text in the rows' arguments (lists and dicts looked into): in how many rows."""
    counts: dict[str, int] = {}
    for row in rows:
        found: dict[str, None] = {}
        for value in row.values():
            _collect(value, found, _DEPTH)
        for text in found:
            counts[text] = counts.get(text, 0) + 1
    return counts


def _collect(value: Any, found: dict[str, None], depth: int) -> None:
    if isinstance(value, str):
        found[value] = None
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found, depth - 1)
    elif depth and isinstance(value, dict):
        for item in value.values():
            _collect(item, found, depth - 1)


def ordered(parts: Sequence[str], counts: Mapping[str, int]) -> list[str]:
    """The parts, those of most rows first, then by text: rows that have the most popular parts
    in common begin alike.  Source: the item order of FP-trees (Han, Pei, Yin, SIGMOD 2000)."""
    return sorted(parts, key=lambda part: (-counts.get(part, 0), part))


def bag_text(counts: Mapping[str, int], separator: str, *parts: str) -> str:
    """The text of a bag whose order is chosen."""
    return separator.join(ordered(parts, counts))
