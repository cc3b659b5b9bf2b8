"""A Hugging Face model folder: `config.json` and safetensors files, one or several.

Pickled checkpoints (`.bin`, `.pt`) are never opened: loading them can run code.
"""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglc.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class HFFolder:
    """A `WeightSource` over a folder; `config` is the parsed config.json.

    Raises ModelError (SGLC504) if the folder lacks a part or a part is damaged.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        self.config = self._json("config.json")
        self._files: dict[str, Any] = {}
        for name in self._file_names():
            try:
                file = safe_open(path / name, framework="pt")
            except (OSError, SafetensorError) as e:
                raise self._error(f"{name} cannot be read: {e}") from e
            names: list[str] = file.keys()  # type: ignore[no-untyped-call]
            self._files |= dict.fromkeys(names, file)

    def names(self) -> Set[str]:
        return self._files.keys()

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        if not tensor.is_floating_point():
            raise self._error(f"tensor {name} has the type {tensor.dtype}")
        return tensor

    def _file_names(self) -> list[str]:
        if not (self.path / "model.safetensors.index.json").exists():
            if (self.path / "model.safetensors").exists():
                return ["model.safetensors"]
            raise self._error("there is no model.safetensors (pickled weights are not opened)")
        shards = self._json("model.safetensors.index.json").get("weight_map")
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
        if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
            raise self._error("model.safetensors.index.json does not list files of this folder")
        return names

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as e:
            raise self._error(f"{name} cannot be read: {e}") from e
        if not isinstance(value, dict):
            raise self._error(f"{name} is not a JSON object")
        return value

    def _error(self, why: str) -> ModelError:
        return ModelError("SGLC504", f"{self.path} is not a usable model folder", why=why)
