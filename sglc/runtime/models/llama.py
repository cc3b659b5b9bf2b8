"""The Llama architecture (Touvron et al., 2023): its weights in memory and its forward pass.

Attention goes through a callable that knows where keys and values lie; rows, pages and requests
are not known here.  Activations are float32 (tokens, features); weights of the linear layers are
float32 or bfloat16, which rounds their inputs and results at every number of tokens alike.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.linear import linear_torch
from sglc.kernels.registry import Kernels
from sglc.kernels.rope import rope_frequencies
from sglc.runtime.models.config import LlamaConfig
from sglc.runtime.weights.source import WeightSource

# (queries (T, heads, head_dim), one layer's pool) -> (T, heads * head_dim)
Attend = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One layer; matrices are packed for `Kernels.linear`, norms are float32."""

    attention_norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Llama:
    """A Llama model on the CPU."""

    def __init__(self, config: LlamaConfig, source: WeightSource, kernels: Kernels,
                 dtype: torch.dtype) -> None:
        """Reads every weight.  Raises ModelError (SGLC504) where the tensors do not fit."""
        self.config = config
        self._kernels = kernels
        self._frequencies = rope_frequencies(config.head_dim, config.rope_theta)
        shapes = config.tensor_shapes()
        _check_names(shapes.keys(), source, config)

        def read(name: str) -> Tensor:
            tensor = source.read(name)
            if tuple(tensor.shape) != shapes[name]:
                raise _mismatch(f"{name} has the shape {list(tensor.shape)} instead of "
                                f"{list(shapes[name])}")
            return tensor

        def matrix(*names: str) -> Tensor:
            """Matrices of one input as one, so that one product computes them all."""
            parts = [read(name).to(dtype) for name in names]
            return kernels.pack_linear(parts[0] if len(parts) == 1 else torch.cat(parts))

        def layer(n: int) -> LlamaLayer:
            at, mlp = f"model.layers.{n}.self_attn.", f"model.layers.{n}.mlp."
            return LlamaLayer(
                attention_norm=read(f"model.layers.{n}.input_layernorm.weight").float(),
                qkv=matrix(*(f"{at}{p}_proj.weight" for p in "qkv")),
                out=matrix(f"{at}o_proj.weight"),
                mlp_norm=read(f"model.layers.{n}.post_attention_layernorm.weight").float(),
                gate_up=matrix(f"{mlp}gate_proj.weight", f"{mlp}up_proj.weight"),
                down=matrix(f"{mlp}down_proj.weight"))

        self._embedding = read("model.embed_tokens.weight").to(dtype)
        self._layers = [layer(n) for n in range(config.layers)]
        self._norm = read("model.norm.weight").float()
        head = self._embedding if config.tied else read("lm_head.weight").to(dtype)
        self._head = kernels.pack_linear(head)
        self._head_rows = head  # as it is, to take single rows from (the embedding, if tied)

    def forward(self, ids: Tensor, positions: Tensor, slots: Tensor, pools: Tensor,
                attend: Attend, outputs: Tensor) -> Tensor:
        """Normed hidden states of the tokens at `outputs`, float32 (K, hidden_size).

        ids, positions, slots: int64 (T,).  outputs: int64 (K,) indices into T.
        pools: (layers, slots, 2, kv_heads, head_dim); the keys and values of all T tokens are
        written to a layer's pool before that layer attends.
        """
        c, k = self.config, self._kernels
        x = self._embedding.index_select(0, ids).float()
        cos, sin = k.rope_angles(positions, self._frequencies)
        for layer, pool in zip(self._layers, pools.unbind(0), strict=True):
            h = k.rms_norm(x, layer.attention_norm, c.rms_eps)
            qkv = k.linear(h, layer.qkv).view(len(x), -1, c.head_dim)
            qk = k.rope(qkv[:, :c.heads + c.kv_heads], cos, sin)
            k.store_kv(pool, slots, qk[:, c.heads:], qkv[:, c.heads + c.kv_heads:])
            last = layer is self._layers[-1]
            if last and not len(outputs):
                return x[:0]
            attended = attend(qk[:, :c.heads], pool)
            if last:  # only what is asked for is needed from here on
                attended, x = attended.index_select(0, outputs), x.index_select(0, outputs)
            x = x + k.linear(attended, layer.out)
            h = k.rms_norm(x, layer.mlp_norm, c.rms_eps)
            x = x + k.linear(k.silu_mul(k.linear(h, layer.gate_up)), layer.down)
        return k.rms_norm(x, self._norm, c.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (K, vocab_size) of (K, hidden_size)."""
        return self._kernels.linear(hidden, self._head)

    def logits_of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """float32 (K, len(ids)): the logits of these tokens alone."""
        return linear_torch(hidden, self._head_rows.index_select(0, ids))


def _check_names(expected: Set[str], source: WeightSource, config: LlamaConfig) -> None:
    wanted, there = set(expected), set(source.names())
    if missing := sorted(wanted - there):
        raise _mismatch(f"{len(missing)} tensors are missing, such as {missing[0]}")
    # A copy of a tied head, and tables that old files store, say nothing new.
    more = {n for n in there - wanted if not n.endswith(".rotary_emb.inv_freq")}
    more -= {"lm_head.weight"} if config.tied else set()
    if more:
        raise _mismatch(f"{len(more)} tensors are not Llama's, such as {min(more)}")


def _mismatch(why: str) -> ModelError:
    return ModelError("SGLC504", "the weights do not fit the model's configuration", why=why)
