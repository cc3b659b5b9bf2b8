"""The two parts of a vision model's `config.json`: what it says of the language model, in the
form of a language model's own file, and what it says of vision.

Known are the layouts of llava-hf (`vision_config` and `text_config`; `preprocessor_config.json`
says how images are fitted) and of LLaVA's and Yi-VL's own code (a flat Llama configuration with
`mm_*` fields, whose tower has a folder of its own).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sglc.errors import ModelError
from sglc.runtime.models.fields import Fields
from sglc.runtime.vision.shape import CLIP_MEAN, CLIP_STD, VisionShape
from sglc.runtime.weights.hub import fetch_from_hub, hub_id

_GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_MOST = 256  # layers, and heads, of a tower
_PREPROCESSOR = "preprocessor_config.json"
_TOWERS = ("clip_vision_model", "siglip_vision_model")
_CLIP_DEFAULTS = {"hidden_size": 768, "num_hidden_layers": 12, "image_size": 224, "patch_size": 32}
_LARGE = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
          "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
          "projection_dim": 768, "hidden_act": "quick_gelu"}
# Towers that checkpoints which hold their weights name, as they are at the hub.
_KNOWN = {"openai/clip-vit-large-patch14-336": {**_LARGE, "image_size": 336},
          "openai/clip-vit-large-patch14": {**_LARGE, "image_size": 224}}

# What text_config leaves out is as transformers' configuration classes have it.
_LLAMA = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
          "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
          "rms_norm_eps": 1e-6}
_TEXT: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8,
                "max_position_embeddings": 131072},
    "qwen2": {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016,
              "num_key_value_heads": 32, "max_position_embeddings": 32768},
}
_FAMILIES = {"LlavaLlamaForCausalLM": "llama", "YiVLForCausalLM": "llama",
             "LlavaMistralForCausalLM": "mistral", "LlavaQwenForCausalLM": "qwen2",
             "LlavaQwen2ForCausalLM": "qwen2"}


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """text: the language model's configuration.  tower: the folder with the tower's weights,
    None where they are in the model's own."""

    shape: VisionShape
    text: dict[str, Any]
    tower: Path | None = None


def is_vision(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a model with vision, of a known layout."""
    return "mm_vision_tower" in config or config.get("model_type") in ("llava", "llava_next")


def vision_config(config: Mapping[str, Any], path: Path, own_tower: bool) -> VisionConfig:
    """What a `config.json` in the folder `path` says; own_tower: the folder has the weights of
    the tower.  Raises ModelError (SGLC504) naming file and field."""
    c = Fields(config, path / "config.json")
    return _flat(c, path, own_tower) if c.has("mm_vision_tower") else _nested(c, path)


# -- llava-hf --------------------------------------------------------------------------------------


def _nested(c: Fields, path: Path) -> VisionConfig:
    text, tower = (_object(c, name) for name in ("text_config", "vision_config"))
    kind = Fields(text, c.path).text("model_type", "llama")
    text = {**_TEXT.get(kind, {}), "model_type": kind, **text}
    if c.get("quantization_config") is not None:
        text["quantization_config"] = c.get("quantization_config")
    strategy = c.text("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        c.refuse(f"vision_feature_select_strategy is {strategy[:40]!r}")
    anyres = c.text("model_type") == "llava_next"
    images = _beside(path)
    fit: Literal["crop", "pad", "stretch", "anyres"] = (
        "anyres" if anyres else "pad" if images.get("do_pad") else
        "stretch" if images.get("do_center_crop") is False else "crop")
    t = _tower_fields(tower, c.path)
    shape = VisionShape(
        tower=t.values, layers=_layers(c, t, "vision_feature_layer"),
        drop_first=strategy == "default", size=t.integer("image_size"),
        patch=t.integer("patch_size"),
        projector=("linear", _activation(c, "projector_hidden_act"), "linear"),
        hidden=Fields(text, c.path).integer("hidden_size"), fit=fit,
        grids=_grids(c, _GRIDS, t.integer("image_size"), False) if anyres else (),
        **_colors(images, path / _PREPROCESSOR))
    return VisionConfig(_checked(c, shape), text)


# -- LLaVA's own, and Yi-VL ------------------------------------------------------------------------


def _flat(c: Fields, path: Path, own_tower: bool) -> VisionConfig:
    names = c.get("architectures")
    named = names[0] if isinstance(names, list) and names else None
    kind = _FAMILIES.get(named) if isinstance(named, str) else "llama"
    if kind is None:
        c.refuse(f"architectures is {str(names)[:80]}; known with mm_vision_tower are "
                 + ", ".join(_FAMILIES))
    folder, tower = _tower(c, path, own_tower)
    t = _tower_fields(tower, c.path if folder is None else folder / "config.json")
    aspect = c.text("image_aspect_ratio", "square")
    fits: dict[str, Literal["crop", "pad", "anyres"]] = {
        "square": "crop", "pad": "pad", "anyres": "anyres"}
    if aspect not in fits:
        c.refuse(f"image_aspect_ratio is {aspect[:40]!r}; known are {', '.join(fits)}")
    merges: dict[str, Literal["spatial_unpad", "spatial", "flat"]] = {
        "spatial_unpad": "spatial_unpad", "spatial": "spatial", "flat": "flat"}
    merge = c.text("mm_patch_merge_type", "flat")
    if merge not in merges:
        c.refuse(f"mm_patch_merge_type is {merge[:40]!r}; known are {', '.join(merges)}")
    c.only("mm_use_im_start_end", False)
    c.only("mm_use_im_patch_token", False)
    which = c.text("mm_vision_select_feature", "patch")
    if which not in ("patch", "cls_patch"):
        c.refuse(f"mm_vision_select_feature is {which[:40]!r}; known are patch, cls_patch")
    images = _beside(path if folder is None else folder)
    size = t.integer("image_size")
    shape = VisionShape(
        tower=t.values, layers=_layers(c, t, "mm_vision_select_layer"),
        drop_first=which == "patch", size=size, patch=t.integer("patch_size"),
        projector=_projector(c), hidden=c.integer("hidden_size"), fit=fits[aspect],
        merge=merges[merge],
        grids=_grids(c, None, size, True) if aspect == "anyres" else (),
        **_colors(images, (folder or path) / _PREPROCESSOR))
    text = {k: v for k, v in c.values.items() if k != "architectures"}
    return VisionConfig(_checked(c, shape), {**text, "model_type": kind}, folder)


def _projector(c: Fields) -> tuple[str, ...]:
    kind = c.text("mm_projector_type", "linear")
    if kind == "linear":
        return ("linear",)
    if kind == "identity":
        return ()
    found = re.fullmatch(r"mlp([1-9])x_gelu(_Norm)?", kind)
    if found is None:
        c.refuse(f"mm_projector_type is {kind[:40]!r}; known are linear, identity, mlpNx_gelu and "
                 "mlpNx_gelu_Norm")
    one = ("linear", "norm") if found[2] else ("linear",)
    return one + ("gelu", *one) * (int(found[1]) - 1)


def _tower(c: Fields, path: Path, own_tower: bool) -> tuple[Path | None, Mapping[str, Any]]:
    """The tower's folder, None where its weights are the model's own, and its configuration."""
    name = c.text("mm_vision_tower")
    for folder in (Path(name).expanduser(), path / name):
        if folder.is_dir() and (folder / "config.json").is_file():
            return folder, _read(folder / "config.json")
    if own_tower and name in _KNOWN:
        return None, _KNOWN[name]
    asked = hub_id(name)
    if asked is None or asked.file is not None:
        c.refuse(f"mm_vision_tower is {name[:80]!r}, and there is no such folder with a "
                 "config.json")
    try:
        folder = fetch_from_hub(name)
    except ModelError as e:
        raise ModelError("SGLC504", "the model's vision tower cannot be had",
                         why=f"{c.path}: mm_vision_tower is {name[:80]!r}; {e.diagnostic.why}",
                         fixes=("put its folder beside the weights, and its relative path into "
                                "mm_vision_tower",)) from e
    return folder, _read(folder / "config.json")


# -- parts of both ---------------------------------------------------------------------------------


def _tower_fields(tower: Mapping[str, Any], path: object) -> Fields:
    if isinstance(tower.get("vision_config"), Mapping):  # a whole CLIP's
        kind = str(tower.get("model_type", "clip")).removesuffix("_vision_model")
        tower = {"model_type": f"{kind}_vision_model", **tower["vision_config"]}
    kind = tower.get("model_type", _TOWERS[0])
    t = Fields({**_CLIP_DEFAULTS, **{k: v for k, v in tower.items() if v is not None},
                "model_type": kind}, path)
    for name, default in (("num_hidden_layers", None), ("num_attention_heads", 12)):
        if not 0 < t.integer(name, default) <= _MOST:
            t.refuse(f"the vision tower's {name} is {t.get(name)}")
    if kind not in _TOWERS:
        t.refuse(f"the vision tower's model_type is {str(kind)[:60]!r}; known are "
                 + ", ".join(_TOWERS))
    return t


def _layers(c: Fields, tower: Fields, name: str) -> tuple[int, ...]:
    value, count = c.get(name), tower.integer("num_hidden_layers")
    given = [-2] if value is None else value if isinstance(value, list) else [value]
    for n in given:
        if type(n) is not int or not -count - 1 <= n <= count:
            c.refuse(f"{name} is {str(value)[:60]}, of a tower with {count} layers")
    if not given:
        c.refuse(f"{name} is an empty list")
    return tuple([n if n >= 0 else count + 1 + n for n in given])


def _grids(c: Fields, default: list[list[int]] | None, size: int, width_first: bool
           ) -> tuple[tuple[int, int], ...]:
    value = c.get("image_grid_pinpoints")
    value = default if value is None else value
    good = isinstance(value, list) and 0 < len(value) <= 256 and all(
        isinstance(p, (list, tuple)) and len(p) == 2 and all(
            type(n) is int and 0 < n <= 64 * size and n % size == 0 for n in p) for p in value)
    if not good:
        c.refuse(f"image_grid_pinpoints is {str(value)[:80]}, no list of pairs of multiples of "
                 f"the tower's image_size, {size}")
    assert value is not None
    return tuple([(p[1], p[0]) if width_first else (p[0], p[1]) for p in value])


def _activation(c: Fields, name: str) -> str:
    known = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
    value = c.text(name, "gelu")
    if value not in known:
        c.refuse(f"{name} is {value[:60]!r}; known are {', '.join(known)}")
    return known[value]


def _colors(images: Mapping[str, Any], path: Path) -> dict[str, Any]:
    out = {}
    for name, field, default in (("mean", "image_mean", CLIP_MEAN), ("std", "image_std", CLIP_STD)):
        value = images.get(field)
        if value is None:
            value = default
        if not (isinstance(value, (list, tuple)) and len(value) == 3 and all(
                type(x) in (int, float) and 0 <= x <= 1 for x in value)) \
                or (name == "std" and min(value) <= 0):
            Fields({}, path).refuse(f"{field} is {str(value)[:80]}, not three numbers of 0 to 1")
        out[name] = tuple([float(x) for x in value])
    return out


def _checked(c: Fields, shape: VisionShape) -> VisionShape:
    if not 0 < shape.patch <= shape.size <= 1 << 12:
        c.refuse(f"the vision tower has an image_size of {shape.size} and a patch_size of "
                 f"{shape.patch}")
    if shape.fit == "anyres" and shape.per_tile != shape.across ** 2:
        c.refuse("features of class tokens cannot stand in a grid: vision_feature_select_strategy "
                 "must be default")
    return shape


def _object(c: Fields, name: str) -> dict[str, Any]:
    value = c.get(name)
    if not isinstance(value, dict):
        c.refuse(f"{name} is {str(value)[:60]}, not an object")
    return value


def _beside(folder: Path) -> dict[str, Any]:
    path = folder / _PREPROCESSOR
    return _read(path) if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ModelError("SGLC504", f"{path} cannot be read", why=str(e)[:200]) from e
    if not isinstance(value, dict):
        raise ModelError("SGLC504", f"{path} is not a JSON object")
    return value
