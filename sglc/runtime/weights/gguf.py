"""Reads GGUF files: metadata, tensor directory, and tensors as float32.

The file is mapped, not read; every count, size and offset is checked against the file's size
before it is used, so a damaged or hostile file is an error (SGLC504), never a crash or a huge
allocation.  What the metadata means is not known here.  Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sglc.errors import ModelError
from sglc.runtime.weights.ggml_types import GGML_TYPES, dequantize
from sglc.runtime.weights.source import Part

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # version 1 had 32-bit counts and was in use for weeks only
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
            10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9
_MAX_ARRAY = 1 << 24
_MAX_DEPTH = 3
_MAX_DIMS = 4
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: `shape` is row-major (ggml's order reversed), `offset` in the file."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    n_bytes: int


class GGUFFile:
    """An open GGUF file.

    Attributes:
        metadata: key -> int, float, bool, str or list of these.
        tensors: name -> TensorInfo.
    Raises ModelError (SGLC504) naming what is wrong if the file is not a sound GGUF file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                if size < 24:
                    self._fail("it is shorter than a GGUF header" if size else "it is empty")
                # A private map: PyTorch wants writable memory, the file stays as it is.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as e:
            raise ModelError("SGLC504", f"cannot read {self.path}", why=str(e)) from e
        self._size = len(self._map)
        self._pos = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._read_header()

    def read(self, name: str, entry: int | None = None, part: Part | None = None) -> Tensor:
        """A new float32 tensor of the weight `name`, or of one entry of its first dimension; of
        this only `part`, if given."""
        info = self.tensors[name]
        shape, size, offset = info.shape, info.n_bytes, info.offset
        if entry is not None:  # rows are whole blocks
            shape, size = shape[1:], size // shape[0]
            offset += entry * size
        raw = np.frombuffer(self._map, np.uint8, size, offset)
        if part is None or shape != part.whole or len(shape) < 2:
            whole = dequantize(raw, info.type_id).view(shape)
            return whole if part is None else part.of(whole)
        # The blocks that hold the part.
        block = GGML_TYPES[info.type_id].block
        first, end = part.columns or (0, shape[1])
        rows = raw.reshape(shape[0], shape[1] // block, -1)[slice(*part.rows or (0, shape[0]))]
        blocks = np.ascontiguousarray(rows[:, first // block:-(-end // block)])
        found = dequantize(blocks.reshape(-1), info.type_id).view(len(rows), -1)
        return found[:, first % block:first % block + end - first]

    # -- the header ------------------------------------------------------------------------------

    def _fail(self, why: str) -> NoReturn:
        raise ModelError("SGLC504", f"{self.path} is not a usable GGUF file", why=why)

    def _read_header(self) -> None:
        if self._map[:4] != MAGIC:
            self._fail(f"it starts with {self._map[:4]!r}, not {MAGIC!r}")
        self._pos = 4
        version = self._u32("version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            self._fail("it is big-endian" if swapped in VERSIONS else
                       f"version {version} is not supported (only {VERSIONS[0]}, {VERSIONS[1]})")
        n_tensors, n_keys = self._u64("tensor count"), self._u64("metadata count")
        self._check_count(n_keys, 8 + 4 + 1, "metadata count")
        for _ in range(n_keys):
            key = self._string("metadata key")
            value = self._value(self._u32(f"type of {key!r}"), key, 0)
            if key in self.metadata:
                self._fail(f"metadata key {key!r} occurs twice")
            self.metadata[key] = value
        self._check_count(n_tensors, 8 + 4 + 8 + 4 + 8, "tensor count")
        directory = [self._tensor_entry() for _ in range(n_tensors)]
        align = self.metadata.get("general.alignment", 32)
        if not isinstance(align, int) or align < 1 or align % 8:
            self._fail(f"general.alignment is {align!r}")
        start = -(-self._pos // align) * align
        for info in directory:
            self._add_tensor(info, start, align)

    def _tensor_entry(self) -> TensorInfo:
        """One directory entry; its offset is still relative to the data section."""
        name = self._string("tensor name")
        n_dims = self._u32(f"rank of {name!r}")
        if not 1 <= n_dims <= _MAX_DIMS:
            self._fail(f"tensor {name!r} has {n_dims} dimensions")
        shape = tuple(self._u64(f"shape of {name!r}") for _ in range(n_dims))[::-1]
        type_id = self._u32(f"type of {name!r}")
        offset = self._u64(f"offset of {name!r}")
        kind = GGML_TYPES.get(type_id)
        if kind is None:
            self._fail(f"tensor {name!r} has the unsupported type {type_id} (supported: "
                       f"{', '.join(k.name for k in GGML_TYPES.values())})")
        if min(shape) < 1 or shape[-1] % kind.block:
            self._fail(f"tensor {name!r} of type {kind.name} has the shape {list(shape)}")
        return TensorInfo(name, shape, type_id, offset,
                          math.prod(shape) // kind.block * kind.n_bytes)

    def _add_tensor(self, info: TensorInfo, start: int, align: int) -> None:
        offset = start + info.offset
        if info.offset % align:
            self._fail(f"tensor {info.name!r} is not aligned to {align} bytes")
        if offset + info.n_bytes > self._size:
            self._fail(f"tensor {info.name!r} needs bytes {offset} to {offset + info.n_bytes}, "
                       f"but the file has {self._size}: it is truncated or damaged")
        if info.name in self.tensors:
            self._fail(f"tensor {info.name!r} occurs twice")
        self.tensors[info.name] = TensorInfo(info.name, info.shape, info.type_id, offset,
                                             info.n_bytes)

    # -- values ----------------------------------------------------------------------------------

    def _need(self, n: int, what: str) -> int:
        """The position of the next `n` bytes, which are skipped."""
        pos = self._pos
        if n > self._size - pos:
            self._fail(f"it ends inside the {what} (byte {pos} + {n} of {self._size})")
        self._pos = pos + n
        return pos

    def _u32(self, what: str) -> int:
        return int(_U32.unpack_from(self._map, self._need(4, what))[0])

    def _u64(self, what: str) -> int:
        return int(_U64.unpack_from(self._map, self._need(8, what))[0])

    def _check_count(self, count: int, least_bytes: int, what: str) -> None:
        if count * least_bytes > self._size - self._pos:
            self._fail(f"the {what} of {count} does not fit into a file of {self._size} bytes")

    def _string(self, what: str) -> str:
        n = self._u64(f"length of the {what}")
        pos = self._need(n, what)
        return self._map[pos:pos + n].decode("utf-8", "surrogateescape")

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind == _STRING:
            return self._string(f"value of {key!r}")
        if kind == _ARRAY:
            return self._array(key, depth + 1)
        return self._numbers(kind, 1, key)[0]

    def _array(self, key: str, depth: int) -> list[Any]:
        kind, count = self._u32(f"item type of {key!r}"), self._u64(f"length of {key!r}")
        if depth > _MAX_DEPTH or count > _MAX_ARRAY:
            self._fail(f"the array {key!r} is too deep or too long ({count} items)")
        if kind == _STRING:
            return self._strings(count, key)
        if kind == _ARRAY:
            self._check_count(count, 12, f"length of {key!r}")
            return [self._array(key, depth + 1) for _ in range(count)]
        return self._numbers(kind, count, key)

    def _numbers(self, kind: int, count: int, key: str) -> list[Any]:
        if kind not in _SCALARS:
            self._fail(f"metadata {key!r} has the unknown type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        pos = self._need(count * dtype.itemsize, f"value of {key!r}")
        values: list[Any] = np.frombuffer(self._map, dtype, count, pos).tolist()
        return values

    def _strings(self, count: int, key: str) -> list[str]:
        """As `_string`, `count` times; one flat loop, since vocabularies have 10^5 entries."""
        self._check_count(count, 8, f"length of {key!r}")
        data, size, pos, unpack = self._map, self._size, self._pos, _U64.unpack_from
        out: list[str] = []
        for _ in range(count):
            start = pos + 8
            if start > size or (end := start + unpack(data, pos)[0]) > size:
                self._fail(f"it ends inside the value of {key!r} (item {len(out)} of {count})")
            out.append(data[start:end].decode("utf-8", "surrogateescape"))
            pos = end
        self._pos = pos
        return out
