"""Rows of a program on their way to a server, in parts that it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sglc.backends.sent_images import SentImages, image_arguments
from sglc.backends.wire import NotPlain, encode
from sglc.ir.module import Program


@dataclass(frozen=True, slots=True)
class Most:
    """What a server takes in a request."""

    rows: int
    bytes: int
    images: int


@dataclass(slots=True)
class Part:
    """What goes in one request.  indices: which rows these are."""

    indices: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    images: SentImages = field(default_factory=SentImages)
    bytes: int = 0


class Sent:
    """The rows of one program.

    most: of a request; a row that has more by itself goes alone.
    """

    def __init__(self, program: Program, most: Most) -> None:
        self.parts: list[Part] = []
        self._pictured = image_arguments(program)
        self._most = most

    def add(self, index: int, values: Mapping[str, Any]) -> None:
        """Add a row.  Raises NotPlain if it cannot be sent, ImageError if a file cannot be read."""
        if self._pictured is None:
            raise NotPlain("an image of the program is no argument")
        images = SentImages()
        row = {}
        for label, value in values.items():
            name = label.lstrip("*")
            row[name] = images.put(value) if name in self._pictured else encode(value)
        size = len(json.dumps(row)) + 32
        part = self.parts[-1] if self.parts else None
        if part is None or self._is_full(part, size, images):
            part = Part()
            self.parts.append(part)
        part.bytes += size + _length(part.images.more(images))
        part.indices.append(index)
        part.rows.append({name: part.images.take(value, images) if name in self._pictured else value
                          for name, value in row.items()})

    def _is_full(self, part: Part, size: int, images: SentImages) -> bool:
        """Whether a row of this size and with these images goes into another part."""
        most, more = self._most, part.images.more(images)
        return (len(part.rows) >= most.rows
                or part.bytes + size + _length(more) > most.bytes
                or len(part.images.files) + len(more) > most.images)


def _length(files: list[str]) -> int:
    """The characters that files take in a request."""
    return sum(map(len, files)) + 8 * len(files)
