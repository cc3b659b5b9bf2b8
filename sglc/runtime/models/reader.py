"""Reading a model's weights: checked against its shape, and each copied once, to its place.

Matrices of one input are one matrix, so that one product computes them all.  Which layers there
are is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.registry import Kernels
from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.weights.source import WeightSource


class WeightReader:
    """Reads weights of `config` from `source` for `kernels`, in `dtype`.

    Raises ModelError (SGLC504), which names file and tensor, where the tensors do not fit.
    """

    def __init__(self, config: LlamaConfig, source: WeightSource, kernels: Kernels,
                 dtype: torch.dtype) -> None:
        self._source = source
        self._kernels = kernels
        self._dtype = dtype
        self._offset = config.norm_offset
        self._shapes: Mapping[str, tuple[int, ...]] = config.tensor_shapes()
        check_names(self._shapes.keys(), source, config)

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def stacked(self, *names: str, dtype: torch.dtype | None = None) -> Tensor:
        """Tensors of one width, one above the other, in memory of their own."""
        parts = [self._read(name) for name in names]  # no memory is taken before all fit
        if len(parts) == 1:
            return parts[0].to(dtype or self._dtype, copy=self._source.mapped)
        whole = torch.empty(sum(len(part) for part in parts), *parts[0].shape[1:],
                            dtype=dtype or self._dtype)
        at = 0
        for part in parts:
            whole[at:at + len(part)] = part
            at += len(part)
        return whole

    def vector(self, name: str) -> Tensor:
        """A tensor in float32."""
        return self.stacked(name, dtype=torch.float32)

    def norm(self, name: str) -> Tensor:
        """The weight of a norm, float32, with what the family adds to it."""
        weight = self.vector(name)
        return weight.add_(self._offset) if self._offset else weight

    def linear(self, *names: str) -> Callable[[Tensor], Tensor]:
        """The product with these matrices' rows, plus their biases if the model has any."""
        product, packed = self._kernels.linear, self._kernels.pack_linear(
            self.stacked(*(f"{name}.weight" for name in names)))
        if f"{names[0]}.bias" not in self:
            return lambda x: product(x, packed)
        bias = self.stacked(*(f"{name}.bias" for name in names), dtype=torch.float32)
        return lambda x: product(x, packed).add_(bias)

    def _read(self, name: str) -> Tensor:
        tensor = self._source.read(name)
        if tuple(tensor.shape) != self._shapes[name]:
            raise mismatch(f"{name} has the shape {list(tensor.shape)} instead of "
                           f"{list(self._shapes[name])}, in {self._source.place(name)}")
        return tensor


def check_names(expected: Set[str], source: WeightSource, config: LlamaConfig) -> None:
    """Refuses a source that lacks tensors of the model or has others."""
    wanted, there = set(expected), set(source.names())
    if missing := sorted(wanted - there):
        raise mismatch(f"{len(missing)} tensors are missing, such as {missing[0]}, in "
                       f"{source.path}")
    # A copy of a tied head, and tables that old files store, say nothing new.
    more = {n for n in there - wanted if not n.endswith(".rotary_emb.inv_freq")}
    more -= {"lm_head.weight"} if config.tied else set()
    if more:
        raise mismatch(f"{len(more)} tensors are not {config.family}'s, such as {min(more)}, in "
                       f"{source.place(min(more))}")


def mismatch(why: str) -> ModelError:
    return ModelError("SGLC504", "the weights do not fit the model's configuration", why=why)
