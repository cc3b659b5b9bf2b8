"""Reads safetensors files: the header, and tensors as views of the mapped file.

Every length, shape and offset is checked against the file's size before it is used, so a damaged
or hostile file is an error (SGLC504) that names the file and the tensor, never a crash, a read
out of bounds or a huge allocation.  What tensors mean is not known here.  Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sglc.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

# type -> (bytes, the torch type's name)
TYPES = {"F64": (8, "float64"), "F32": (4, "float32"), "F16": (2, "float16"),
         "BF16": (2, "bfloat16"), "F8_E4M3": (1, "float8_e4m3fn"), "F8_E5M2": (1, "float8_e5m2"),
         "I64": (8, "int64"), "I32": (4, "int32"), "I16": (2, "int16"), "I8": (1, "int8"),
         "U64": (8, "uint64"), "U32": (4, "uint32"), "U16": (2, "uint16"), "U8": (1, "uint8"),
         "BOOL": (1, "bool")}
_MOST_HEADER = 100_000_000  # as the format's own reader has it
_MOST_DIMS = 8


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`kind`: a key of TYPES.  `offset`: in the file."""

    kind: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class SafetensorsFile:
    """An open safetensors file; `tensors`: name -> StoredTensor.

    Raises ModelError (SGLC504) naming what is wrong if it is not a sound one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._size = file.seek(0, 2)
                if self._size < 10:
                    self._fail(f"it has {self._size} bytes: it is truncated")
                # A private map: PyTorch wants writable memory, the file stays as it is.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as e:
            raise ModelError("SGLC504", f"cannot read {path}", why=e.strerror or str(e)) from e
        length = int.from_bytes(self._map[:8], "little")
        if length > min(_MOST_HEADER, self._size - 8):
            self._fail(f"its header of {length} bytes does not fit into {self._size} bytes: it is "
                       "truncated, or no safetensors file")
        self._start = 8 + length
        self.tensors: dict[str, StoredTensor] = {}
        for name, entry in self._header(self._map[8:self._start]).items():
            if name != "__metadata__":
                self.tensors[name] = self._tensor(name, entry)
        self._check_overlaps()

    def read(self, name: str) -> Tensor:
        """The tensor as a view of the file, or a copy where it lies at an odd place."""
        import torch

        info = self.tensors[name]
        size, kind = TYPES[info.kind]
        dtype = getattr(torch, kind)
        if not info.n_bytes:
            return torch.empty(info.shape, dtype=dtype)
        raw = np.frombuffer(self._map, np.uint8, info.n_bytes, info.offset)
        if info.offset % size:
            raw = raw.copy()
        return torch.from_numpy(raw).view(dtype).view(info.shape)

    # -- the header ------------------------------------------------------------------------------

    def _fail(self, why: str) -> NoReturn:
        raise ModelError("SGLC504", f"{self.path} is not a usable safetensors file", why=why)

    def _header(self, data: bytes) -> dict[str, Any]:
        def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            out = dict(pairs)
            if len(out) != len(pairs):
                self._fail("a name occurs twice in its header")
            return out

        try:
            header = json.loads(data.decode("utf-8"), object_pairs_hook=distinct)
        except (ValueError, RecursionError) as e:
            self._fail(f"its header is not JSON: {str(e)[:120]}")
        if not isinstance(header, dict):
            self._fail("its header is not a JSON object")
        return header

    def _tensor(self, name: str, entry: Any) -> StoredTensor:
        shown = repr(name)[:120]
        if not isinstance(entry, dict):
            self._fail(f"the entry of tensor {shown} is not an object")
        kind: Any = entry.get("dtype")
        shape: Any = entry.get("shape")
        span: Any = entry.get("data_offsets")
        if not isinstance(kind, str) or kind not in TYPES:
            self._fail(f"dtype of tensor {shown} is {repr(kind)[:40]} (known: {', '.join(TYPES)})")
        if not _is_sizes(shape) or len(shape) > _MOST_DIMS:
            self._fail(f"shape of tensor {shown} is {repr(shape)[:80]}")
        if not _is_sizes(span) or len(span) != 2:
            self._fail(f"data_offsets of tensor {shown} are {repr(span)[:80]}")
        start, stop = span
        if not start <= stop <= self._size - self._start:
            self._fail(f"data_offsets of tensor {shown} are {start} to {stop}, but the file has "
                       f"{self._size - self._start} bytes of data: it is truncated or damaged")
        if math.prod(shape) * TYPES[kind][0] != stop - start:
            self._fail(f"tensor {shown} of type {kind} and shape {repr(shape)[:80]} has "
                       f"{stop - start} bytes")
        return StoredTensor(kind, tuple(shape), self._start + start, stop - start)

    def _check_overlaps(self) -> None:
        end, last = 0, ""
        for name, t in sorted(self.tensors.items(), key=lambda item: item[1].offset):
            if t.n_bytes and t.offset < end:
                self._fail(f"the tensors {last[:60]!r} and {name[:60]!r} overlap")
            if t.n_bytes:
                end, last = t.offset + t.n_bytes, name


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in value)
