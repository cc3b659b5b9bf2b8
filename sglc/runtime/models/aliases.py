"""Weights of a file under other names: all families' tensors under the names that Llama's and
Qwen's have at Hugging Face, whatever the file calls them, and parts of a tensor as one of their
own.  What is computed with them is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.weights.int4_checkpoint import int4_of
from sglc.runtime.weights.source import Part, WeightSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sglc.kernels.int4 import Int4Matrix


@dataclass(frozen=True, slots=True)
class Alias:
    """A tensor of the file, or rows `start` to `stop` of it."""

    own: str
    start: int = 0
    stop: int | None = None


class AliasedWeights:
    """A `WeightSource` over another.  Tensors of the file without an alias keep their names, so
    that they are not overlooked."""

    def __init__(self, source: WeightSource, aliases: Mapping[str, Alias]) -> None:
        self._source = source
        there = source.names()
        self._aliases = {name: a for name, a in aliases.items() if a.own in there}
        used = {a.own for a in self._aliases.values()}
        self._names = self._aliases.keys() | (there - used)
        self.path, self.mapped = source.path, source.mapped
        self.config = getattr(source, "config", {})  # a folder's, as it is

    def names(self) -> Set[str]:
        return self._names

    def read(self, name: str, part: Part | None = None) -> Tensor:
        alias = self._aliases.get(name)
        if alias is None or alias.stop is None:
            return self._source.read(self._own(name), part)
        tensor = self._source.read(alias.own)[alias.start:alias.stop]
        return tensor if part is None else part.of(tensor)

    def int4(self, name: str, part: Part | None = None,
             device: torch.device | None = None) -> Int4Matrix | None:
        """As `Int4Checkpoint.int4`; None for rows of a tensor."""
        alias = self._aliases.get(name)
        if alias is not None and alias.stop is not None:
            return None
        return int4_of(self._source, self._own(name), part, device)

    def place(self, name: str) -> str:
        return self._source.place(self._own(name))

    def n_bytes(self, name: str) -> int:
        alias = self._aliases.get(name)
        if alias is not None and alias.stop is not None:
            return self.read(name).nbytes
        return self._source.n_bytes(self._own(name))

    def _own(self, name: str) -> str:
        return self._aliases[name].own if name in self._aliases else name


def hf_weights(source: WeightSource, config: LlamaConfig) -> WeightSource:
    """The weights of a Hugging Face folder under the names that the models use."""
    aliases = _aliases(config)
    return AliasedWeights(source, aliases) if aliases else source


def own_names(config: LlamaConfig) -> set[str]:
    """The names that such a folder gives to the weights."""
    aliases = _aliases(config)
    return {aliases[n].own if n in aliases else n for n in config.tensor_shapes()}


def _aliases(config: LlamaConfig) -> dict[str, Alias]:
    if config.family == "mixtral":
        return _mixtral(config)
    return _qwen(config) if config.family == "qwen" else {}


def _mixtral(c: LlamaConfig) -> dict[str, Alias]:
    aliases: dict[str, Alias] = {}
    for n in range(c.layers):
        at, own = f"model.layers.{n}.mlp", f"model.layers.{n}.block_sparse_moe"
        aliases[f"{at}.gate.weight"] = Alias(f"{own}.gate.weight")
        for k in range(c.experts.count if c.experts else 0):
            for part, w in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
                aliases[f"{at}.experts.{k}.{part}_proj.weight"] = Alias(
                    f"{own}.experts.{k}.{w}.weight")
    return aliases


def _qwen(c: LlamaConfig) -> dict[str, Alias]:
    """The first Qwen's: queries, keys and values are one matrix, and `w2` is the gate."""
    aliases = {"model.embed_tokens.weight": Alias("transformer.wte.weight"),
               "model.norm.weight": Alias("transformer.ln_f.weight")}
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    for n in range(c.layers):
        at, own = f"model.layers.{n}", f"transformer.h.{n}"
        for kind in ("weight", "bias"):
            for part, a, b in (("q", 0, q), ("k", q, q + kv), ("v", q + kv, q + 2 * kv)):
                aliases[f"{at}.self_attn.{part}_proj.{kind}"] = Alias(
                    f"{own}.attn.c_attn.{kind}", a, b)
        for name, theirs in (("input_layernorm", "ln_1"), ("post_attention_layernorm", "ln_2"),
                             ("self_attn.o_proj", "attn.c_proj"), ("mlp.gate_proj", "mlp.w2"),
                             ("mlp.up_proj", "mlp.w1"), ("mlp.down_proj", "mlp.c_proj")):
            aliases[f"{at}.{name}.weight"] = Alias(f"{own}.{theirs}.weight")
    return aliases
