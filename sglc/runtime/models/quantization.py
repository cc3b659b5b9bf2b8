"""What a `config.json` says about quantized weights.

Formats that are not read here are refused by name, as are values no checkpoint of a format has.
Where the weights lie is `weights/int4_checkpoint.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sglc.runtime.models.fields import Fields


@dataclass(frozen=True, slots=True)
class Int4Scheme:
    """4-bit weights.

    method: "awq" or "gptq", whose layouts differ.  group_size: columns that share scale and
    zero; 0 for all.  zero_offset: what is added to zeros as they are stored.  kept: parts of names
    of layers that are not quantized.  head: whether the LM head is.  act_order: columns of a group
    lie anywhere.  place: names the field in errors.
    """

    method: str
    group_size: int
    zero_offset: int = 0
    kept: tuple[str, ...] = ()
    head: bool = False
    act_order: bool = False
    place: str = "quantization_config"

    def covers(self, layer: str) -> bool:
        """Whether a layer of this name is quantized, as far as the configuration says."""
        linear = layer.endswith("_proj") or (self.head and layer == "lm_head")
        return linear and not any(part in layer for part in self.kept)


def int4_scheme(config: Mapping[str, Any], path: object = "config.json") -> Int4Scheme | None:
    """The scheme of a `config.json`, already parsed; None for weights that are not quantized.

    Raises ModelError (SGLC504), which names file and field, for what is not supported.
    """
    values = config.get("quantization_config")
    if values is None:
        return None
    place = f"{path}: quantization_config"
    if not isinstance(values, dict):
        Fields({}, path).refuse(f"quantization_config is {repr(values)[:60]}, not an object")
    c = Fields(values, place)
    method = c.text("quant_method")
    if method not in _METHODS:
        c.refuse(f"quant_method is {method[:60]!r}, which is not supported; known are "
                 + ", ".join(_METHODS))
    if (bits := c.integer("bits")) != 4:
        c.refuse(f"bits is {bits}, which is not supported; known is 4")
    size = c.integer("group_size", 128)
    if size != -1 and not 0 < size < 1 << 31:
        c.refuse(f"group_size is {size}")
    return _METHODS[method](c, max(size, 0), place)


def _awq(c: Fields, size: int, place: str) -> Int4Scheme:
    version = c.text("version", "gemm")
    if version.lower() != "gemm":
        c.refuse(f"version is {version[:60]!r}, which is not supported; known is gemm")
    return Int4Scheme("awq", size, kept=tuple(c.items("modules_to_not_convert", str) or ()),
                      place=place)


def _gptq(c: Fields, size: int, place: str) -> Int4Scheme:
    form = c.text("checkpoint_format", "gptq")
    if form not in _ZERO_OFFSETS:
        c.refuse(f"checkpoint_format is {form[:60]!r}, which is not supported; known are "
                 + ", ".join(_ZERO_OFFSETS))
    c.only("is_marlin_format", False)
    c.only("pack_dtype", "int32")
    c.only("dynamic", {}, False)
    return Int4Scheme("gptq", size, _ZERO_OFFSETS[form],
                      tuple(c.items("modules_to_not_convert", str) or ()),
                      c.flag("lm_head"), c.flag("desc_act"), place)


_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
_METHODS = {"awq": _awq, "gptq": _gptq}
