"""Opening the vision part of a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sglc.runtime.vision.config import vision_config
from sglc.runtime.vision.shape import VisionShape
from sglc.runtime.vision.weights import TextWeights, VisionWeights, has_tower, plain_name
from sglc.runtime.weights.hf_folder import HFFolder


@dataclass(frozen=True, slots=True)
class VisionPart:
    """What a `VisionModel` is made of."""

    shape: VisionShape
    weights: VisionWeights


def open_vision(folder: HFFolder) -> tuple[TextWeights, VisionPart]:
    """The two parts of a model with vision, neither read yet.  The first one's `config` is that
    of the language model.  Raises ModelError (SGLC504)."""
    names = folder.names()
    own_tower = has_tower(names)
    found = vision_config(folder.config, folder.path, own_tower)
    # A head in the file is taken, whatever the configuration says of tied embeddings.
    head = any(plain_name(name) == "lm_head.weight" for name in names)
    text: dict[str, Any] = {**found.text, "tie_word_embeddings": not head}
    tower = None if found.tower is None or own_tower else HFFolder(found.tower)
    return (TextWeights(folder, text),
            VisionPart(found.shape, VisionWeights(folder, tower)))
