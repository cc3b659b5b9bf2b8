"""A rank's part of a model's weights: of each tensor, only its rows or columns are read.

Names and shapes are those of the rank's own, smaller model.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import TYPE_CHECKING

from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.parallel.group import Group
from sglc.runtime.parallel.split import Span, Split, check_split
from sglc.runtime.weights.int4_checkpoint import int4_of
from sglc.runtime.weights.source import Part, WeightSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sglc.kernels.int4 import Int4Matrix

_NAME = re.compile(r"\.(?:self_attn|mlp)\.(.*\.)?([qkvo]|gate|up|down)_proj\.(?:weight|bias)$")
_ADDED = ("o_proj.bias", "down_proj.bias")
_ENDS = ("model.embed_tokens.weight", "lm_head.weight")  # only rank 0 reads them


def rank_part(source: WeightSource, config: LlamaConfig, group: Group, *, even: bool
              ) -> tuple[WeightSource, LlamaConfig]:
    """The weights and the shape of one rank's part of a model.  Raises ModelError (SGLC504) if
    there is none (see `check_split`)."""
    check_split(config, group.size, even=even)
    split = Split(group.rank, group.size)
    return ShardedWeights(source, config, split), split.part(config)


class ShardedWeights:
    """A `WeightSource` over another, for one rank.

    Matrices whose results are added up over ranks have their columns divided, and rank 0 alone
    has their biases; the others' are zeros.
    """

    def __init__(self, source: WeightSource, config: LlamaConfig, split: Split) -> None:
        self._source, self._config, self._split = source, config, split
        self._whole = config.tensor_shapes()
        self.path, self.mapped = source.path, source.mapped
        self.config = getattr(source, "config", {})

    def names(self) -> Set[str]:
        return self._source.names()

    def read(self, name: str) -> Tensor:
        if self._split.rank and name.endswith(_ADDED) and name in self._whole:
            import torch

            return torch.zeros(self._whole[name])
        part = self._part(name)
        if part is None:
            return self._source.read(name)
        return self._source.read(name, part).contiguous()

    def int4(self, name: str, part: Part | None = None,
             device: torch.device | None = None) -> Int4Matrix | None:
        """As `Int4Checkpoint.int4`, of this rank's part."""
        return int4_of(self._source, name, self._part(name), device)

    def place(self, name: str) -> str:
        return self._source.place(name)

    def n_bytes(self, name: str) -> int:
        """Of the part.  What other ranks read is nothing here."""
        if name in _ENDS:
            return 0 if self._split.rank else self._source.n_bytes(name)
        part = self._part(name)
        return int(self._source.n_bytes(name) * (1.0 if part is None else part.share))

    def _part(self, name: str) -> Part | None:
        """What to read of a tensor; None for all of it."""
        found, whole = _NAME.search(name), self._whole.get(name)
        if found is None or whole is None or name.endswith(_ADDED):
            return None
        at, kind = found.group(1) or "", found.group(2)
        span = self._span(at, kind)
        return Part(whole, columns=span) if kind in ("o", "down") else Part(whole, rows=span)

    def _span(self, at: str, kind: str) -> Span:
        c, split = self._config, self._split
        if kind in "qo":
            first, end = split.heads(c)
        elif kind in "kv":
            first, end = split.kv_heads(c)
        elif at.startswith("experts."):
            assert c.experts is not None
            return split.width(c.experts.size)
        elif at.startswith("shared_expert."):
            assert c.experts is not None
            return split.width(c.experts.shared_size)
        else:
            return split.width(c.intermediate_size)
        return first * c.head_dim, end * c.head_dim
