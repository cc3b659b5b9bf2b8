"""Random weights made on the device, for measurements that need a model's shape alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Set
from pathlib import Path

import torch
from torch import Tensor

from sglc.kernels.int4 import Int4Matrix, random_int4
from sglc.runtime.models.config import LlamaConfig
from sglc.runtime.models.quantization import Int4Scheme
from sglc.runtime.weights.source import Part


class DummyWeights:
    """A `WeightSource` of random weights, made on the device; the same for the same seed and
    name, whatever else is read.  In 4 bits where `scheme` says so.  Norms do nothing.

    spread: standard deviation of what is not in 4 bits.  At its power limit a GPU is up to 2 %
    faster where it is small, so it matters beside others' dummy weights.
    """

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device,
                 seed: int = 0, scheme: Int4Scheme | None = None, spread: float = 0.02) -> None:
        self._shapes = config.tensor_shapes()
        self._scheme = scheme
        self._dtype = dtype
        self._seed, self._spread = seed, spread
        self._one = 1 - config.norm_offset
        self._random = torch.Generator(device)
        self.path, self.mapped = Path("dummy"), False

    def names(self) -> Set[str]:
        return self._shapes.keys()

    def read(self, name: str, part: Part | None = None) -> Tensor:
        shape, where = self._shapes[name], self._random.device
        if len(shape) == 1 and not name.endswith(".bias"):
            tensor = torch.full(shape, self._one if "norm" in name else 1.0, dtype=self._dtype,
                                device=where)
        else:
            self._start(name)
            tensor = torch.empty(shape, dtype=self._dtype, device=where)
            tensor.normal_(0.0, self._spread, generator=self._random)
        return tensor if part is None else part.of(tensor)

    def int4(self, name: str, part: Part | None = None,
             device: torch.device | None = None) -> Int4Matrix | None:
        """As `Int4Checkpoint.int4`."""
        layer, shape = name.removesuffix(".weight"), self._shapes[name]
        if self._scheme is None or layer == name or not self._scheme.covers(layer):
            return None
        self._start(name)
        whole = random_int4(shape, self._scheme.group_size, self._dtype, self._random,
                            self._scheme.act_order)
        return whole if part is None else whole.part(part.rows, part.columns)

    def _start(self, name: str) -> None:
        self._random.manual_seed(self._seed << 32 | zlib.crc32(name.encode()))

    def place(self, name: str) -> str:
        return str(self.path)

    def n_bytes(self, name: str) -> int:
        return math.prod(self._shapes[name]) * self._dtype.itemsize
