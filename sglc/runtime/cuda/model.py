"""The decoder of Llama and of the families that differ from it in parts, on a GPU: its weights in
one type, and its forward pass in few kernels.

Norms, gates and residuals are parts of the products (`kernels.fused_linear`).  Attention is a
callable that knows where keys and values lie; steps, rows and requests are not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sglc.kernels.registry import DeviceKernels
from sglc.kernels.residual import Residual
from sglc.runtime.cuda.layers import Attend, read_layer
from sglc.runtime.cuda.reader import DeviceReader
from sglc.runtime.models.config import LlamaConfig
from sglc.runtime.models.rope import Rope
from sglc.runtime.models.shape import ROPE_FACTORS
from sglc.runtime.parallel.group import Alone, Group
from sglc.runtime.weights.source import WeightSource

Images = tuple[Tensor, Tensor]


class DeviceLlama:
    """A model whose weights, activations and KV are all of one type on one device, or the part of
    it that one rank of `group` computes.

    scratch_bytes: what a step needs beside activations, to make 4-bit matrices dense.
    """

    def __init__(self, config: LlamaConfig, source: WeightSource, kernels: DeviceKernels,
                 dtype: torch.dtype, device: torch.device, group: Group | None = None) -> None:
        """Reads every weight.  Raises ModelError (SGLC504) where the tensors do not fit."""
        self.config = config
        self.dtype = dtype
        self.device = device
        self._kernels = kernels
        self._group = group or Alone()
        first = self._group.rank == 0  # has the embedding and the head, and adds the residual
        read = DeviceReader(config, source, kernels, dtype, device)
        factors = source.read(ROPE_FACTORS) if ROPE_FACTORS in read else None
        self._rope = _rope_table(Rope(config, factors), config.context_length, device)
        none = torch.empty(0, dtype=dtype, device=device)
        self._embedding = read.tensor("model.embed_tokens.weight").contiguous() if first else none
        self._layers = [read_layer(config, read, n) for n in range(config.layers)]
        self._norm = read.norm("model.norm.weight")
        self._head_rows = (self._embedding if config.tied or not first
                           else read.tensor("lm_head.weight").contiguous())
        self._head = kernels.pack(self._head_rows) if first else None
        self.scratch_bytes = read.scratch_bytes

    def forward(self, ids: Tensor, positions: Tensor, slots: Tensor, pools: Tensor,
                attend: Attend, outputs: Tensor | None, images: Images | None = None) -> Tensor:
        """Normed hidden states of the tokens at `outputs`, (K, hidden_size).

        ids, positions, slots: int64 (T,); a slot of -1 keeps nothing.  outputs: int64 (K,)
        indices into T; None for all.  pools: (layers, slots, 2, kv_heads, head_dim); the keys and
        values of all T tokens are in a layer's pool before that layer attends.  images: features
        (F, hidden_size), and for each token which of them it is, -1 for none.
        """
        c, k = self.config, self._kernels
        group = self._group
        first = group.rank == 0
        x = Residual(group.broadcast(
            k.embed(ids, self._embedding, *(images or (None, None)), c.embedding_scale)
            if first else torch.empty(len(ids), c.hidden_size, dtype=self.dtype,
                                      device=self.device)))
        width = c.heads * c.head_dim
        for n, layer in enumerate(self._layers):
            q = k.rope_linear(x, layer.qkv, layer.attention_norm, c.rms_eps, positions, slots,
                              self._rope, pools[n], layer.q_norm, layer.k_norm, layer.qkv_bias)
            last = n == len(self._layers) - 1
            if last and outputs is not None and not len(outputs):
                return x.x[:0]
            attended = attend(q, pools[n], n).view(len(ids), width)
            if last and outputs is not None:  # only what is asked for is needed from here on
                attended = attended.index_select(0, outputs)
                x = Residual(x.x.index_select(0, outputs))
            x = self._plus(x, attended, layer.out, layer.attention_post, layer.feed.unit)
            x = self._plus(x, x, layer.feed, layer.feed_post,
                           not last and self._layers[n + 1].unit)
        return k.rms_norm(x.x, self._norm, c.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (K, vocab_size) of (K, hidden_size)."""
        return self._capped(
            self._kernels.fused_linear(hidden, self._head, out_dtype=torch.float32))

    def logits_of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """float32 (K, C): the logits of these tokens alone; ids: int32 (K, C)."""
        return self._capped(self._kernels.few_logits(hidden, self._head_rows, ids))

    def _plus(self, x: Residual, of: Any, part: Callable[[Any, Tensor | None, bool], Residual],
              post: Tensor | None, squares: bool) -> Residual:
        """x + part(of), or x + the norm of part(of), summed up over ranks.  squares: as for
        `add_linear`."""
        group = self._group
        if post is not None:
            return Residual(self._kernels.rms_norm_add(
                group.all_reduce(part(of, None, False).x), x.x, post, self.config.rms_eps))
        if group.size == 1:
            return part(of, x.x, squares)
        return Residual(group.all_reduce(part(of, x.x if group.rank == 0 else None, False).x))

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self.config.logit_cap
        return logits if not cap else logits.div_(cap).tanh_().mul_(cap)


def _rope_table(rope: Rope, length: int, device: torch.device) -> Tensor:
    """What `rope_linear` reads: float32 (length, head_dim), cosines, then sines."""
    positions = torch.arange(length, device=device)
    angles = positions.float()[:, None] * rope.frequencies(positions)
    return torch.cat((angles.cos(), angles.sin()), 1) * rope.scale
