"""A Hugging Face model folder: `config.json` and safetensors files, one or several.

Pickled checkpoints (`.bin`, `.pt`) are never opened: loading them can run code.
"""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sglc.errors import ModelError
from sglc.runtime.weights.safetensors_file import SafetensorsFile
from sglc.runtime.weights.source import Part

if TYPE_CHECKING:
    from torch import Tensor

_INDEX = "model.safetensors.index.json"


class HFFolder:
    """A `WeightSource` over a folder; `config` is the parsed config.json.

    The weights are those that the index lists, else `model.safetensors`, else all
    `*.safetensors` there are.  Raises ModelError (SGLC504) if the folder lacks a part or a part
    is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.mapped = path, True
        self.config = self._json("config.json")
        self._files: dict[str, SafetensorsFile] = {}
        shards = self._shards()
        if shards is None:
            for file in self._loose_files():
                opened = SafetensorsFile(file)
                self._files |= dict.fromkeys(opened.tensors, opened)
        else:
            self._open_shards(shards)

    def names(self) -> Set[str]:
        return self._files.keys()

    def read(self, name: str, part: Part | None = None) -> Tensor:
        tensor = self._files[name].read(name)
        if not tensor.is_floating_point():
            raise ModelError("SGLC504", f"{self.place(name)} holds no weights of this model",
                             why=f"tensor {name} has the type {tensor.dtype}")
        return tensor if part is None else part.of(tensor)

    def raw(self, name: str) -> Tensor:
        """One tensor as it is stored, of any type."""
        return self._files[name].read(name)

    def place(self, name: str) -> str:
        return str(self._files[name].path)

    def n_bytes(self, name: str) -> int:
        return self._files[name].tensors[name].n_bytes

    def _shards(self) -> dict[str, str] | None:
        """Tensor -> file, as the index has it; None if there is no index."""
        if not (self.path / _INDEX).exists():
            return None
        shards = self._json(_INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            self._fail(f"{_INDEX} has no weight_map")
        for tensor, name in shards.items():
            if not isinstance(name, str) or Path(name).name != name or "\\" in name:
                self._fail(f"{_INDEX} says that {tensor[:80]!r} is in {repr(name)[:80]}, which is "
                           "no file of this folder")
        return shards

    def _open_shards(self, shards: dict[str, str]) -> None:
        files: dict[str, SafetensorsFile] = {}
        for tensor, name in shards.items():
            if name not in files:
                if not (self.path / name).is_file():
                    self._fail(f"the shard {name} is missing; {_INDEX} lists it for {tensor} and "
                               f"{sum(n == name for n in shards.values()) - 1} more")
                files[name] = SafetensorsFile(self.path / name)
            if tensor not in files[name].tensors:
                self._fail(f"{name} does not have the tensor {tensor}, for which {_INDEX} lists "
                           "it")
            self._files[tensor] = files[name]

    def _loose_files(self) -> list[Path]:
        one = self.path / "model.safetensors"
        found = [one] if one.exists() else sorted(self.path.glob("*.safetensors"))
        if not found:
            self._fail("there is no model.safetensors (pickled weights are not opened)")
        return found

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise self._error(f"{name} cannot be read: {str(e)[:200]}") from e
        if not isinstance(value, dict):
            self._fail(f"{name} is not a JSON object")
        return value

    def _fail(self, why: str) -> NoReturn:
        raise self._error(why)

    def _error(self, why: str) -> ModelError:
        return ModelError("SGLC504", f"{self.path} is not a usable model folder", why=why)
