"""The decoder of Llama (Touvron et al., 2023) and of the families that differ from it in parts:
its weights in memory and its forward pass.

Attention goes through a callable that knows where keys and values lie; rows, pages and requests
are not known here.  Activations are float32 (tokens, features); weights of the linear layers are
float32 or bfloat16, which rounds their inputs and results at every number of tokens alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.kernels.embed import embed_torch
from sglc.kernels.gelu_mul import gelu_mul_torch
from sglc.kernels.int8 import Int8Weight, linear_int8
from sglc.kernels.linear import linear_torch
from sglc.kernels.registry import Kernels
from sglc.runtime.models.feed import ExpertMLP, GatedMLP, Linear
from sglc.runtime.models.reader import WeightReader, check_names, mismatch
from sglc.runtime.models.rope import Rope
from sglc.runtime.models.shape import ROPE_FACTORS, LlamaConfig
from sglc.runtime.parallel.group import Alone, Group
from sglc.runtime.weights.source import WeightSource

__all__ = ["Attend", "Llama", "LlamaLayer", "check_names", "mismatch"]

# (queries (T, heads, head_dim), one layer's pool, the layer) -> (T, heads * head_dim)
Attend = Callable[[Tensor, Tensor, int], Tensor]
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One layer; norms are float32.

    qk_norm: (heads + kv_heads, head_dim), where queries and keys are normed.
    attention_post, feed_post: norms of what is added to the residual, where there are any.
    """

    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    out: Linear
    attention_post: Tensor | None
    feed_norm: Tensor
    feed: GatedMLP | ExpertMLP
    feed_post: Tensor | None


class Llama:
    """A model on the CPU, or the part of it that one rank of `group` computes."""

    def __init__(self, config: LlamaConfig, source: WeightSource, kernels: Kernels,
                 dtype: torch.dtype, group: Group | None = None) -> None:
        """Reads every weight.  Raises ModelError (SGLC504) where the tensors do not fit."""
        self.config = config
        self._kernels = kernels
        self._group = group or Alone()
        read = WeightReader(config, source, kernels, dtype)
        first = self._group.rank == 0  # has the embedding and the head
        self._embedding = read.stacked("model.embed_tokens.weight") if first else torch.empty(0)
        self._layers = [_layer(config, read, kernels, n) for n in range(config.layers)]
        self._norm = read.norm("model.norm.weight")
        # After the layers: by now the head size is known to be the tensors'.
        self._rope = Rope(config, read.vector(ROPE_FACTORS) if ROPE_FACTORS in read else None)
        # As it is, to take single rows from (the embedding, if tied).
        self._head_rows = self._embedding if config.tied or not first else (
            read.stacked("lm_head.weight"))
        self._head = kernels.pack_linear(self._head_rows) if first else self._head_rows
        if isinstance(self._head, Int8Weight) and not config.tied:
            self._head_rows = torch.empty(0)

    def forward(self, ids: Tensor, positions: Tensor, slots: Tensor, pools: Tensor,
                attend: Attend, outputs: Tensor, images: Images | None = None) -> Tensor:
        """Normed hidden states of the tokens at `outputs`, float32 (K, hidden_size).

        ids, positions, slots: int64 (T,).  outputs: int64 (K,) indices into T.
        images: features (F, hidden_size), and for each token which of them it is, -1 for none.
        pools: (layers, slots, 2, kv_heads, head_dim); the keys and values of all T tokens are
        written to a layer's pool before that layer attends.
        """
        c, k = self.config, self._kernels
        x = self._group.broadcast(self._embedded(ids, images))
        cos, sin = k.rope_angles(positions, self._rope.frequencies(positions))
        if self._rope.scale != 1:
            cos, sin = cos * self._rope.scale, sin * self._rope.scale
        for n, (layer, pool) in enumerate(zip(self._layers, pools.unbind(0), strict=True)):
            h = k.rms_norm(x, layer.attention_norm, c.rms_eps)
            qkv = layer.qkv(h).view(len(x), -1, c.head_dim)
            qk, values = qkv[:, :c.heads + c.kv_heads], qkv[:, c.heads + c.kv_heads:]
            if layer.qk_norm is not None:
                qk = torch.nn.functional.rms_norm(qk, (c.head_dim,), None, c.rms_eps)
                qk = qk * layer.qk_norm
            qk = k.rope(qk, cos, sin)
            k.store_kv(pool, slots, qk[:, c.heads:], values)
            last = layer is self._layers[-1]
            if last and not len(outputs):
                return x[:0]
            attended = attend(qk[:, :c.heads], pool, n)
            if last:  # only what is asked for is needed from here on
                attended, x = attended.index_select(0, outputs), x.index_select(0, outputs)
            add = self._group.all_reduce
            x = x + self._normed(add(layer.out(attended)), layer.attention_post)
            h = k.rms_norm(x, layer.feed_norm, c.rms_eps)
            x = x + self._normed(add(layer.feed(h)), layer.feed_post)
        return k.rms_norm(x, self._norm, c.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (K, vocab_size) of (K, hidden_size)."""
        return self._capped(self._kernels.linear(hidden, self._head))

    def logits_of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """float32 (K, len(ids)): the logits of these tokens alone."""
        if isinstance(self._head, Int8Weight):
            return self._capped(linear_int8(hidden, self._head.take(ids)))
        return self._capped(linear_torch(hidden, self._head_rows.index_select(0, ids)))

    def _embedded(self, ids: Tensor, images: Images | None) -> Tensor:
        """What goes into the first layer, in rank 0; room for it in others."""
        if self._group.rank:
            return torch.empty(len(ids), self.config.hidden_size)
        if images is None:
            x = self._embedding.index_select(0, ids).float()
        else:
            features, feature_of = images
            x = embed_torch(ids, self._embedding, features.to(self._embedding.dtype),
                            feature_of).float()
        return x if self.config.embedding_scale == 1 else x * self.config.embedding_scale

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else self._kernels.rms_norm(x, weight, self.config.rms_eps)

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self.config.logit_cap
        return logits if not cap else (logits / cap).tanh_().mul_(cap)


def _layer(c: LlamaConfig, read: WeightReader, kernels: Kernels, n: int) -> LlamaLayer:
    at = f"model.layers.{n}"
    post, second = None, "post_attention_layernorm"
    if c.post_norms:
        post, second = read.norm(f"{at}.{second}.weight"), "pre_feedforward_layernorm"
    qk_norm = None
    if c.qk_norm:
        q, k = (read.vector(f"{at}.self_attn.{p}_norm.weight") for p in "qk")
        qk_norm = torch.cat((q.expand(c.heads, -1), k.expand(c.kv_heads, -1)))
    return LlamaLayer(
        attention_norm=read.norm(f"{at}.input_layernorm.weight"),
        qkv=read.linear(*(f"{at}.self_attn.{p}_proj" for p in "qkv")),
        qk_norm=qk_norm,
        out=read.linear(f"{at}.self_attn.o_proj"),
        attention_post=post,
        feed_norm=read.norm(f"{at}.{second}.weight"),
        feed=_feed(c, read, kernels, n),
        feed_post=read.norm(f"{at}.post_feedforward_layernorm.weight") if c.post_norms else None)


def _feed(c: LlamaConfig, read: WeightReader, kernels: Kernels, n: int) -> GatedMLP | ExpertMLP:
    at = f"model.layers.{n}.mlp"
    act_mul = kernels.silu_mul if c.activation == "silu" else gelu_mul_torch

    def mlp(name: str) -> GatedMLP:
        return GatedMLP(read.linear(f"{name}.gate_proj", f"{name}.up_proj"),
                        read.linear(f"{name}.down_proj"), act_mul)

    if not c.has_experts(n):
        return mlp(at)
    experts = c.experts
    assert experts is not None
    shared, gate = None, None
    if experts.shared_size:
        shared = mlp(f"{at}.shared_expert")
        gate = read.vector(f"{at}.shared_expert_gate.weight")
    return ExpertMLP(read.vector(f"{at}.gate.weight"),
                     tuple(mlp(f"{at}.experts.{k}") for k in range(experts.count)),
                     experts.used, experts.normalised, shared, gate)
