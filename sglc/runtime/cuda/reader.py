"""Reading a model's weights for a GPU: checked against its shape, in one type, and packed.

Which layers there are is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sglc.kernels.int4 import Int4Matrix, stacked_int4
from sglc.kernels.registry import DeviceKernels
from sglc.runtime.models.llama import check_names, mismatch
from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.weights.int4_checkpoint import int4_of
from sglc.runtime.weights.source import WeightSource


class DeviceReader:
    """Reads weights of `config` from `source`, in `dtype` on `device`.

    scratch_bytes: of the largest 4-bit matrix, which may be made dense for a product.
    Raises ModelError (SGLC504), which names file and tensor, where the tensors do not fit.
    """

    def __init__(self, config: LlamaConfig, source: WeightSource, kernels: DeviceKernels,
                 dtype: torch.dtype, device: torch.device) -> None:
        self.kernels = kernels
        self.scratch_bytes = 0
        self._source = source
        self._dtype, self._device = dtype, device
        self._offset = config.norm_offset
        self._shapes = config.tensor_shapes()
        check_names(self._shapes.keys(), source, config)

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def tensor(self, name: str) -> Tensor:
        found = self._matrix(name)
        return found.dense(self._dtype) if isinstance(found, Int4Matrix) else found

    def norm(self, name: str) -> Tensor:
        """The weights of a norm, with what the family adds to them; then they are float32, for
        the sums are not of a shorter type."""
        if not self._offset:
            return self.tensor(name)
        return self._plain(name, torch.float32) + self._offset

    def bias(self, *names: str, order: Tensor | None = None) -> Tensor | None:
        """The biases of these layers as one, float32; None where they have none.  order: of the
        rows of each."""
        if f"{names[0]}.bias" not in self:
            return None
        found = [self._plain(f"{name}.bias", torch.float32) for name in names]
        return torch.cat(found if order is None else [bias[order] for bias in found])

    def matrix(self, *names: str, order: Tensor | None = None) -> Any:
        """Matrices of one input as one, so that one product computes them all.  order: of the
        rows of each."""
        parts = [self._matrix(name) for name in names]
        return self._packed(parts if order is None else [part[order] for part in parts])

    def after_norm(self, norm: str, *names: str, order: Tensor | None = None
                   ) -> tuple[Any, Tensor, bool]:
        """As `matrix`, of what a norm gives; its weights, and whether they are one because the
        matrices have been multiplied by them, which those of 4 bits are not, nor any of which
        numbers would then be too large for their type."""
        weights = self.norm(norm)
        parts = [self._matrix(name) for name in names]
        plain = [part for part in parts if isinstance(part, Tensor)]
        if len(plain) < len(parts):
            return self._packed(parts if order is None else [p[order] for p in parts]), weights, \
                False
        whole = torch.cat(plain if order is None else [part[order] for part in plain])
        largest = torch.maximum(whole.amax(0), -whole.amin(0)).float() * weights.float().abs()
        if not bool((largest <= torch.finfo(self._dtype).max).all()):
            return self.kernels.pack(whole), weights, False
        # In place: a copy of the largest matrix may be more than there is room for.
        return self.kernels.pack(whole.mul_(weights)), \
            torch.ones_like(weights, dtype=self._dtype), True

    def ordered(self, name: str) -> tuple[Any, Tensor | None]:
        """A matrix as it takes the least work, and the order that it wants its inputs in: which
        of them each of its columns is for; None if they stay."""
        found, order = self._matrix(name), None
        if isinstance(found, Int4Matrix):
            found, order = found.ordered()
        return self._packed([found]), order

    def stacked(self, groups: Sequence[Sequence[str]]) -> Tensor:
        """Matrices of one width, (groups, rows of a group, columns), each copied to its place."""
        shapes = [self._shapes[name] for name in groups[0]]
        whole = torch.empty(len(groups), sum(rows for rows, _ in shapes), shapes[0][1],
                            dtype=self._dtype, device=self._device)
        for group, names in zip(whole, groups, strict=True):
            at = 0
            for name in names:
                part = self.tensor(name)
                group[at:at + len(part)] = part
                at += len(part)
        return whole

    def _packed(self, parts: Sequence[Tensor | Int4Matrix]) -> Any:
        whole = stacked_int4([part if isinstance(part, Int4Matrix) else None for part in parts])
        packed = None if whole is None else self.kernels.pack_int4(whole)
        if packed is not None and whole is not None:
            size = whole.codes.numel() * self._dtype.itemsize
            self.scratch_bytes = max(self.scratch_bytes, size)
            return packed
        dense = [part.dense(self._dtype) if isinstance(part, Int4Matrix) else part
                 for part in parts]
        return self.kernels.pack(dense[0] if len(dense) == 1 else torch.cat(dense))

    def _matrix(self, name: str) -> Tensor | Int4Matrix:
        found = int4_of(self._source, name, device=self._device)
        if found is None:
            return self._plain(name)
        self._check(name, tuple(found.shape))
        return found

    def _plain(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        tensor = self._source.read(name)
        self._check(name, tuple(tensor.shape))
        return tensor.to(self._device, dtype or self._dtype)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if shape != self._shapes[name]:
            raise mismatch(f"{name} has the shape {list(shape)} instead of "
                           f"{list(self._shapes[name])}, in {self._source.place(name)}")
