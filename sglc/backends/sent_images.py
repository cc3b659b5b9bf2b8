"""Images on their way to a server: which arguments of a program are images, and what is sent.

A client sends the bytes of files, never paths.  Whoever takes a program needs to know what may be
an image in it before it runs: an argument, or an item of one, that is used as nothing else.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from sglc.ir.module import Op, Program, Value
from sglc.ir.signatures import LOOPS
from sglc.runtime.vision.opening import file_of

MARK = "$image"


def image_arguments(program: Program) -> frozenset[str] | None:
    """The arguments that are images, or lists of images, and nothing else; None if the program
    has an image from anywhere else."""
    found: set[Value] = set()
    for op in program.walk():
        if op.name == "prompt.image":
            source = op.operands[1]
            if isinstance(source, Value) and source.op is not None and _is_item(source.op):
                source = source.op.operands[0]
            if not isinstance(source, Value) or source not in program.args:
                return None
            found.add(source)
    if not all(_is_image(use, arg) for arg in found for use in arg.uses):
        return None
    return frozenset([arg.name for arg in found])


def _is_item(op: Op) -> bool:
    return op.name == "prompt.compute" and op.attrs["fn"] == "getitem"


def _is_image(use: Op, value: Value) -> bool:
    """Whether `use` takes `value` as an image, or as a list of images."""
    if use.name == "prompt.image":
        return use.operands[1] is value
    if use.name in LOOPS:
        return use.operands.count(value) == 1 and use.operands[0] is value
    if _is_item(use):
        return use.operands[0] is value and all(
            u.name == "prompt.image" for u in use.results[0].uses)
    return use.name == "prompt.compute" and use.attrs["fn"] == "len"


@dataclass(slots=True)
class SentImages:
    """The files of some rows, each once."""

    files: list[str] = field(default_factory=list)  # in base64
    _numbers: dict[str, int] = field(default_factory=dict)

    def put(self, value: Any) -> Any:
        """What stands for an image, or for a list of them, in a row.  Raises ImageError."""
        if isinstance(value, (list, tuple)):
            return [self.put(v) for v in value]
        return self._named(base64.b64encode(file_of(value)).decode())

    def more(self, others: SentImages) -> list[str]:
        """The files that `others` has and these are not."""
        return [f for f in others.files if f not in self._numbers]

    def take(self, value: Any, others: SentImages) -> Any:
        """What `others.put` gave, as of here, with the files that it names."""
        if isinstance(value, list):
            return [self.take(v, others) for v in value]
        return self._named(others.files[value[MARK]])

    def _named(self, file: str) -> dict[str, int]:
        number = self._numbers.setdefault(file, len(self.files))
        if number == len(self.files):
            self.files.append(file)
        return {MARK: number}
