"""The Llama architecture on a GPU: its weights in one type, and its forward pass in few kernels.

Norms, gates and residuals are parts of the products (`kernels.fused_linear`).  Attention is a
callable that knows where keys and values lie; steps, rows and requests are not known here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglc.kernels.int4 import Int4Matrix, random_int4, stacked_int4
from sglc.kernels.registry import DeviceKernels
from sglc.runtime.models.config import LlamaConfig
from sglc.runtime.models.llama import check_names, mismatch
from sglc.runtime.models.quantization import Int4Scheme
from sglc.runtime.models.rope import Rope
from sglc.runtime.models.shape import ROPE_FACTORS
from sglc.runtime.parallel.group import Alone, Group
from sglc.runtime.weights.int4_checkpoint import int4_of
from sglc.runtime.weights.source import Part, WeightSource

_SUPPORTED = frozenset(("rope scaling", "norms of queries and keys"))

# (queries (T, heads, head_dim), one layer's pool) -> the same shape
Attend = Callable[[Tensor, Tensor], Tensor]
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class DeviceLayer:
    """One layer; matrices are packed for `DeviceKernels.fused_linear`."""

    attention_norm: Tensor
    qkv: Any
    out: Any
    mlp_norm: Tensor
    gate_up: Any
    down: Any
    q_norm: Tensor | None
    k_norm: Tensor | None


class DummyWeights:
    """A `WeightSource` of random weights, made on the device; the same for the same seed and
    name, whatever else is read.  In 4 bits where `scheme` says so."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device,
                 seed: int = 0, scheme: Int4Scheme | None = None) -> None:
        self._shapes = config.tensor_shapes()
        self._scheme = scheme
        self._dtype = dtype
        self._seed = seed
        self._random = torch.Generator(device)
        self.path, self.mapped = Path("dummy"), False

    def names(self) -> Set[str]:
        return self._shapes.keys()

    def read(self, name: str, part: Part | None = None) -> Tensor:
        shape, where = self._shapes[name], self._random.device
        if len(shape) == 1:
            tensor = torch.ones(shape, dtype=self._dtype, device=where)
        else:
            self._start(name)
            tensor = torch.empty(shape, dtype=self._dtype, device=where)
            tensor.normal_(0.0, 0.02, generator=self._random)
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


class DeviceLlama:
    """A Llama model whose weights, activations and KV are all of one type on one device, or the
    part of it that one rank of `group` computes."""

    def __init__(self, config: LlamaConfig, source: WeightSource, kernels: DeviceKernels,
                 dtype: torch.dtype, device: torch.device, group: Group | None = None) -> None:
        """Reads every weight.  Raises ModelError (SGLC504) where the tensors do not fit, and for
        a model that is more than is computed here."""
        config.require(_SUPPORTED, "on a GPU")
        self.config = config
        self.dtype = dtype
        self.device = device
        self._kernels = kernels
        self._group = group or Alone()
        first = self._group.rank == 0  # has the embedding and the head, and adds the residual
        shapes = config.tensor_shapes()
        check_names(shapes.keys(), source, config)

        self.scratch_bytes = 0  # of a 4-bit matrix that is made dense for a product

        def check(name: str, shape: tuple[int, ...]) -> None:
            if shape != shapes[name]:
                raise mismatch(f"{name} has the shape {list(shape)} instead of "
                               f"{list(shapes[name])}, in {source.place(name)}")

        def int4(name: str) -> Int4Matrix | None:
            found = int4_of(source, name, device=device)
            if found is not None:
                check(name, tuple(found.shape))
            return found

        def read(name: str) -> Tensor:
            quantized = int4(name)
            tensor = source.read(name) if quantized is None else quantized.dense(dtype)
            check(name, tuple(tensor.shape))
            return tensor.to(device, dtype)

        def matrix(*names: str) -> Any:
            """Matrices of one input as one, so that one product computes them all."""
            quantized = [int4(name) for name in names]
            whole = stacked_int4(quantized)
            packed = None if whole is None else kernels.pack_int4(whole)
            if packed is not None and whole is not None:
                size = whole.codes.numel() * dtype.itemsize
                self.scratch_bytes = max(self.scratch_bytes, size)
                return packed
            parts = [read(name) if found is None else found.dense(dtype)
                     for name, found in zip(names, quantized, strict=True)]
            return kernels.pack(parts[0] if len(parts) == 1 else torch.cat(parts))

        def layer(n: int) -> DeviceLayer:
            at, mlp = f"model.layers.{n}.self_attn.", f"model.layers.{n}.mlp."
            norms = [read(f"{at}{p}_norm.weight") if config.qk_norm else None for p in "qk"]
            return DeviceLayer(
                attention_norm=read(f"model.layers.{n}.input_layernorm.weight"),
                qkv=matrix(*(f"{at}{p}_proj.weight" for p in "qkv")),
                out=matrix(f"{at}o_proj.weight"),
                mlp_norm=read(f"model.layers.{n}.post_attention_layernorm.weight"),
                gate_up=matrix(f"{mlp}gate_proj.weight", f"{mlp}up_proj.weight"),
                down=matrix(f"{mlp}down_proj.weight"), q_norm=norms[0], k_norm=norms[1])

        factors = source.read(ROPE_FACTORS) if ROPE_FACTORS in shapes else None
        self._rope = _rope_table(Rope(config, factors), config.context_length, device)
        none = torch.empty(0, dtype=dtype, device=device)
        self._embedding = read("model.embed_tokens.weight").contiguous() if first else none
        self._layers = [layer(n) for n in range(config.layers)]
        self._norm = read("model.norm.weight")
        self._head_rows = (self._embedding if config.tied or not first
                           else read("lm_head.weight").contiguous())
        self._head = kernels.pack(self._head_rows) if first else None

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
        x = group.broadcast(
            k.embed(ids, self._embedding, *(images or ())) if first else torch.empty(
                len(ids), c.hidden_size, dtype=self.dtype, device=self.device))
        width = c.heads * c.head_dim
        for n, layer in enumerate(self._layers):
            qkv = k.fused_linear(x, layer.qkv, layer.attention_norm, c.rms_eps)
            q = k.rope_store(qkv, positions, slots, self._rope, pools[n], layer.q_norm,
                             layer.k_norm, c.rms_eps)
            last = n == len(self._layers) - 1
            if last and outputs is not None and not len(outputs):
                return x[:0]
            attended = attend(q, pools[n]).view(len(x), width)
            if last and outputs is not None:  # only what is asked for is needed from here on
                attended, x = attended.index_select(0, outputs), x.index_select(0, outputs)
            x = group.all_reduce(
                k.fused_linear(attended, layer.out, residual=x if first else None))
            h = k.fused_linear(x, layer.gate_up, layer.mlp_norm, c.rms_eps, gated=True)
            x = group.all_reduce(
                k.fused_linear(h, layer.down, residual=x if first else None))
        return k.rms_norm(x, self._norm, c.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (K, vocab_size) of (K, hidden_size)."""
        return self._kernels.fused_linear(hidden, self._head, out_dtype=torch.float32)

    def logits_of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """float32 (K, C): the logits of these tokens alone; ids: int32 (K, C)."""
        return self._kernels.few_logits(hidden, self._head_rows, ids)


def _rope_table(rope: Rope, length: int, device: torch.device) -> Tensor:
    """What `rope_store` reads: float32 (length, head_dim), cosines, then sines."""
    positions = torch.arange(length, device=device)
    angles = positions.float()[:, None] * rope.frequencies(positions)
    return torch.cat((angles.cos(), angles.sin()), 1) * rope.scale
