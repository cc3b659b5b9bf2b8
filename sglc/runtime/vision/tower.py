"""The features of images: a tower of transformers', the projector, and a bounded memory of what
they gave.  Prompts and requests are not known here.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sglc.errors import ModelError
from sglc.runtime.vision.places import Places
from sglc.runtime.vision.shape import VisionShape
from sglc.runtime.vision.weights import VisionWeights
from sglc.tokens.images import FIRST_ID, INDEX_BITS, MOST_POSITIONS, PlacedImage

_KEPT_BYTES = 512 << 20  # of features
_TILES = 8  # that the tower looks at together


class VisionModel:
    """Computes features in `dtype` on `device`.

    places: which ids its images have.  encoded: images that the tower looked at, over time.
    Features may be asked for from any one thread at a time.
    """

    def __init__(self, shape: VisionShape, weights: VisionWeights, dtype: torch.dtype,
                 device: torch.device | str = "cpu") -> None:
        """Reads every weight.  Raises ModelError (SGLC504) where the tensors do not fit."""
        self.shape = shape
        self.places = Places(shape)
        self.encoded = 0
        self._dtype, self._device = dtype, torch.device(device)
        self._tower = _tower(shape, weights, dtype, self._device)
        width = int(shape.tower["hidden_size"]) * len(shape.layers)
        self._projector: list[tuple[str, Tensor, Tensor | None]] = []
        for n, step in enumerate(shape.projector):
            if step in ("gelu", "gelu_tanh"):
                self._projector.append((step, torch.empty(0), None))
                continue
            wide = (shape.hidden, width) if step == "linear" else (shape.hidden,)
            self._projector.append((step, self._read(weights, f"projector.{n}.weight", wide),
                                    self._bias(weights, f"projector.{n}.bias")))
            width = shape.hidden
        if width != shape.hidden:
            raise ModelError("SGLC504", "the model cannot be used",
                             why=f"{weights.path}: the vision tower's features are {width} wide, "
                                 f"and the language model {shape.hidden}")
        self._newline = self._read(weights, "newline", (shape.hidden,)) if (
            shape.has_newline) else None
        self._features: OrderedDict[int, Tensor] = OrderedDict()
        self._bytes = 0

    def merged(self, ids: np.ndarray) -> tuple[Tensor, np.ndarray] | None:
        """What stands for the ids of images among these: features (F, hidden), and which of them
        for each id, int64 (T,), -1 for ids of the vocabulary.  None if there are no images."""
        there = np.flatnonzero(ids >= FIRST_ID)
        if not len(there):
            return None
        keys = (ids[there] ^ FIRST_ID) >> INDEX_BITS
        feature_of = np.full(len(ids), -1, np.int64)
        parts, count = [], 0
        for key in np.unique(keys).tolist():
            features = self._of(key)
            mine = there[keys == key]
            feature_of[mine] = (ids[mine] & (MOST_POSITIONS - 1)) + count
            parts.append(features)
            count += len(features)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), feature_of

    def _of(self, key: int) -> Tensor:
        found = self._features.get(key)
        if found is not None:
            self._features.move_to_end(key)
            return found
        placed = self.places.find(key)
        if placed is None:
            raise ModelError("SGLC503", "an image is gone before its features were computed")
        features = self.features(placed)
        self._features[key] = features
        self._bytes += features.nbytes
        while self._bytes > _KEPT_BYTES and len(self._features) > 1:
            self._bytes -= self._features.popitem(last=False)[1].nbytes
        return features

    @torch.inference_mode()
    def features(self, placed: PlacedImage) -> Tensor:
        """(positions, hidden) of one image, computed anew."""
        self.encoded += 1
        tiles, shape = placed.data, self.shape
        pixels = torch.from_numpy(tiles.pixels).to(self._device).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v, device=self._device).view(3, 1, 1)
                     for v in (shape.mean, shape.std))
        pixels = ((pixels * (1 / 255) - mean) / std).to(self._dtype)
        looked_at = [self._looked_at(pixels[at:at + _TILES])
                     for at in range(0, len(pixels), _TILES)]
        x = torch.cat(looked_at).flatten(0, 1)
        for step, weight, bias in self._projector:
            if step == "linear":
                x = functional.linear(x, weight, bias)
            elif step == "norm":
                x = functional.layer_norm(x, weight.shape, weight, bias)
            else:
                x = functional.gelu(x, approximate="tanh" if step == "gelu_tanh" else "none")
        if self._newline is not None:
            x = torch.cat((x, self._newline[None]))
        return x.index_select(0, torch.from_numpy(tiles.rows).to(self._device))

    def _looked_at(self, pixels: Tensor) -> Tensor:
        """(tiles, features, width) of normed pixels (tiles, 3, size, size)."""
        # cuDNN would embed patches in TF32, which float32 does not mean here.
        exact = self._dtype == torch.float32 and self._device.type == "cuda"
        with torch.backends.cudnn.flags(enabled=False) if exact else nullcontext():
            states = self._tower(pixels, output_hidden_states=True,
                                 return_dict=True).hidden_states
        taken = torch.cat([states[n] for n in self.shape.layers], dim=-1)
        return taken[:, 1:] if self.shape.drop_first and self.shape.has_class else taken

    def _read(self, weights: VisionWeights, name: str, shape: tuple[int, ...]) -> Tensor:
        return weights.read(name, shape).to(self._device, self._dtype, copy=True)

    def _bias(self, weights: VisionWeights, name: str) -> Tensor | None:
        return self._read(weights, name, (self.shape.hidden,)) if name in weights.names() else None


def _tower(shape: VisionShape, weights: VisionWeights, dtype: torch.dtype, device: torch.device
           ) -> Any:
    """transformers' module with the layers that are needed."""
    try:
        import transformers
    except ImportError as e:
        raise ModelError("SGLC504", "the vision tower needs transformers", why=str(e),
                         fixes=("pip install 'sglc[vision]'",)) from None
    given = {k: v for k, v in shape.tower.items()
             if k not in ("model_type", "architectures", "transformers_version", "torch_dtype",
                          "dtype", "_name_or_path")}
    # Beyond the last layer that is asked for nothing is computed; SigLIP norms its last output.
    last = max(shape.layers) + (not shape.has_class)
    given["num_hidden_layers"] = min(int(given["num_hidden_layers"]), max(1, last))
    family = "CLIP" if shape.has_class else "Siglip"
    if not shape.has_class:
        given["vision_use_head"] = False
    try:
        config = getattr(transformers, f"{family}VisionConfig")(**given)
        with torch.device("meta"):
            module: Any = getattr(transformers, f"{family}VisionModel")(config)
    except Exception as e:  # its own checks raise errors of many types
        raise ModelError("SGLC504", "the vision tower cannot be built",
                         why=f"{type(e).__name__}: {str(e)[:200]}") from e
    # Before memory is taken; CLIP's last norm makes nothing that is looked at.
    tensors = {name: weights.read(f"tower.{name.removeprefix('vision_model.')}", tuple(p.shape))
               for name, p in module.named_parameters()
               if not (shape.has_class and "post_layernorm." in name)}
    module = module.to_empty(device=device).to(dtype).eval()
    for name, buffer in module.named_buffers():
        if not name.endswith("position_ids"):
            raise ModelError("SGLC504", "the vision tower cannot be built",
                             why=f"its buffer {name} is not known")
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in tensors:
                parameter.copy_(tensors[name])
            else:
                parameter.zero_()
    return module.requires_grad_(False)
