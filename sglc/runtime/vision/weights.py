"""One checkpoint as two: the language model's tensors under the names that these have anywhere,
and those of vision.

In both layouts, and as transformers has written llava-hf's at different times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from sglc.runtime.models.reader import mismatch
from sglc.runtime.weights.hf_folder import HFFolder
from sglc.runtime.weights.source import Part, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = ("vision_tower.", "multi_modal_projector.", "language_model.", "mm_projector.",
          "image_newline")
_LINEAR = {"linear_1": "0", "linear_2": "2"}
VISION = "vision."  # before the names of all that is not the language model's


def plain_name(name: str) -> str:
    """The name of a checkpoint's tensor: as in a Llama's file, or `vision.tower.*`,
    `vision.projector.<n>.*`, `vision.newline`."""
    inner = name.removeprefix("model.")
    if not inner.startswith(_PARTS):
        return name
    if inner.startswith("language_model."):
        rest = inner.removeprefix("language_model.")
        return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"
    if inner.startswith("vision_tower."):
        return f"{VISION}tower.{tower_name(re.sub(r'^(vision_tower[.])+', '', inner))}"
    if inner.startswith("multi_modal_projector."):
        part, _, kind = inner.partition(".")[2].partition(".")
        return f"{VISION}projector.{_LINEAR.get(part, part)}.{kind}"
    if inner.startswith("mm_projector."):
        rest = inner.partition(".")[2]
        return f"{VISION}projector.{rest if '.' in rest else f'0.{rest}'}"
    return f"{VISION}newline"


def tower_name(name: str) -> str:
    """The name of a tower's tensor, which versions of transformers have begun in two ways."""
    return name.removeprefix("vision_model.")


class TextWeights:
    """A `WeightSource`: the language model's part of a checkpoint, and its `config`."""

    def __init__(self, source: HFFolder, config: Mapping[str, Any]) -> None:
        self._source = source
        self.path, self.mapped = source.path, source.mapped
        self.config = config
        self._own = {plain: own for own in source.names()
                     if not (plain := plain_name(own)).startswith(VISION)}

    def names(self) -> Set[str]:
        return self._own.keys()

    def read(self, name: str, part: Part | None = None) -> Tensor:
        own = self._own[name]
        return self._source.read(own) if part is None else self._source.read(own, part)

    def raw(self, name: str) -> Tensor:
        """As `HFFolder.raw`."""
        return self._source.raw(self._own[name])

    def place(self, name: str) -> str:
        return self._source.place(self._own.get(name, name))

    def n_bytes(self, name: str) -> int:
        return self._source.n_bytes(self._own[name])


class VisionWeights:
    """The tensors of vision, without `vision.` in their names.  tower: a folder of its own for
    the tower, whose tensors a checkpoint's own go before."""

    def __init__(self, source: WeightSource, tower: WeightSource | None) -> None:
        self._from: dict[str, tuple[WeightSource, str]] = {}
        self.path = source.path
        if tower is not None:
            for own in tower.names():
                self._from[f"tower.{tower_name(own)}"] = tower, own
        for own in source.names():
            plain = plain_name(own)
            if plain.startswith(VISION):
                self._from[plain.removeprefix(VISION)] = source, own

    def names(self) -> Set[str]:
        return self._from.keys()

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of this shape.  Raises ModelError (SGLC504) naming file and tensor."""
        if name not in self._from:
            raise mismatch(f"a tensor of the vision part is missing, {name}, in {self.path}")
        source, own = self._from[name]
        tensor = source.read(own)
        if tuple(tensor.shape) != shape:
            raise mismatch(f"{own} has the shape {list(tensor.shape)} instead of {list(shape)}, "
                           f"in {source.place(own)}")
        return tensor


def has_tower(names: Mapping[str, object] | Set[str]) -> bool:
    """Whether a checkpoint with these names holds a tower's weights."""
    return any(plain_name(name).startswith(f"{VISION}tower.") for name in names)
