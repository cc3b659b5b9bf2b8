"""What the vision part of a model is: its tower, its projector, and how images are cut for it.

Where it is read from (`config.py`) and how it is computed (`tower.py`) is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class VisionShape:
    """One model's vision.

    tower: the tower's configuration, by transformers' names; its model_type is clip_vision_model
        or siglip_vision_model.  layers: whose outputs are taken (0: the embeddings) and put side
        by side.  drop_first: without the first position, CLIP's class token.
    size, patch: side of a tile, and of a patch of it, in pixels.
    projector: what is applied to each feature in turn: "linear", "norm", "gelu", "gelu_tanh";
        the weights of the n-th are `projector.n`.  hidden: how wide what it gives is.
    fit: how an image becomes tiles: "crop" (the middle square), "pad" (to a square, with the
        mean), "stretch" (to a square), or "anyres" (the image small, and in tiles of one of the
        sizes in `grids`, (height, width)).
    merge: of tiles: "spatial_unpad" (rows of the whole, without what was padded, each with a
        newline), "spatial" (all of it, without), "flat" (tile by tile).
    mean, std: of the pixels, 0 .. 1, by channel.
    """

    tower: Mapping[str, Any]
    layers: tuple[int, ...]
    drop_first: bool
    size: int
    patch: int
    projector: tuple[str, ...]
    hidden: int
    fit: Literal["crop", "pad", "stretch", "anyres"]
    grids: tuple[tuple[int, int], ...] = ()
    merge: Literal["spatial_unpad", "spatial", "flat"] = "spatial_unpad"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    @property
    def across(self) -> int:
        """Patches across a tile."""
        return self.size // self.patch

    @property
    def has_class(self) -> bool:
        """Whether the tower gives a class token before the patches."""
        return bool(self.tower["model_type"] == "clip_vision_model")

    @property
    def per_tile(self) -> int:
        """Features of a tile."""
        return self.across ** 2 + (self.has_class and not self.drop_first)

    @property
    def has_newline(self) -> bool:
        return self.fit == "anyres" and self.merge == "spatial_unpad"
