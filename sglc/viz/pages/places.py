"""Source places as numbers, and the lines of the files that they are in."""

from __future__ import annotations

import linecache
from collections.abc import Iterable

from sglc.errors import Place

AROUND = 2  # lines shown before and after one that is named


class Places:
    """Numbers files in the order in which they come up."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}

    def key(self, place: Place | None) -> str | None:
        """"file number:line", None for no place."""
        if place is None:
            return None
        return f"{self.files.setdefault(place.file, len(self.files))}:{place.line}"


def name(file: str) -> str:
    """A file's name, without its folders."""
    return file.replace("\\", "/").rpartition("/")[2]


def brief(place: Place | None) -> str:
    """A place as "file.py:12"."""
    return "" if place is None else f"{name(place.file)}:{place.line}"


def excerpts(file: str, named: Iterable[int]) -> list[tuple[int, str]]:
    """The lines of a file that are named, with those around them; none if it cannot be read."""
    try:
        linecache.checkcache(file)
        written = linecache.getlines(file)
    except ValueError:  # no file can have such a name
        return []
    shown = {n for line in named for n in range(line - AROUND, line + AROUND + 1)
             if 1 <= n <= len(written)}
    return [(n, written[n - 1].rstrip("\n")) for n in sorted(shown)]
