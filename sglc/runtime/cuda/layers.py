"""The parts of a decoder's layer on a GPU: weights, and the products with them.

A part whose result goes to the residual adds it in the same kernel where it can.  Where keys and
values lie, and what ranks add up, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sglc.kernels.registry import DeviceKernels
from sglc.kernels.residual import Residual
from sglc.runtime.cuda.reader import DeviceReader
from sglc.runtime.models.shape import LlamaConfig

# (queries (T, heads, head_dim), one layer's pool, the layer) -> the same shape
Attend = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class Added:
    """A product that is added to the residual; `weight` is packed for `fused_linear`."""

    kernels: DeviceKernels
    weight: Any
    bias: Tensor | None

    def __call__(self, x: Tensor, residual: Tensor | None, squares: bool = False) -> Residual:
        """x W^T + bias + residual, which is updated in place if there is one.  squares: as for
        `add_linear`."""
        if residual is not None and self.bias is None:
            return self.kernels.add_linear(x, self.weight, residual, squares)
        y = self.kernels.fused_linear(x, self.weight, residual=residual)
        return Residual(y if self.bias is None else y.add_(self.bias))


@dataclass(frozen=True, slots=True)
class GatedFeed:
    """down(act(gate) * up) of a norm of x.

    unit: whether the norm's weights are one.
    """

    kernels: DeviceKernels
    norm: Tensor | None
    unit: bool
    eps: float
    gate_up: Any
    gate_up_bias: Tensor | None
    down: Added
    gelu: bool

    def __call__(self, x: Residual, residual: Tensor | None, squares: bool = False) -> Residual:
        """With what `Added` adds.  x is normed before, if this has no norm."""
        k, norm = self.kernels, self.norm
        if self.gate_up_bias is None:
            h = k.fused_linear(x, self.gate_up, norm, self.eps, gated=True, gelu=self.gelu)
        else:
            both = k.fused_linear(x, self.gate_up, norm, self.eps).add_(self.gate_up_bias)
            h = k.gelu_mul(both) if self.gelu else k.silu_mul(both)
        return self.down(h, residual, squares)


@dataclass(frozen=True, slots=True)
class ExpertFeed:
    """A mixture of experts (see `kernels.experts`) of a norm of x, and maybe an MLP for every
    token with a gate of its own.

    router: packed; the scores of `count` experts, then the shared MLP's gate if there is one.
    gate_up: (count, 2 width, H).  down: (count, H, width).
    """

    kernels: DeviceKernels
    norm: Tensor
    eps: float
    router: Any
    gate_up: Tensor
    down: Tensor
    used: int
    normalised: bool
    gelu: bool
    shared: GatedFeed | None

    @property
    def unit(self) -> bool:
        """As of `GatedFeed`: what takes a norm here takes all of it."""
        return False

    def __call__(self, x: Residual, residual: Tensor | None, squares: bool = False) -> Residual:
        """As `GatedFeed`."""
        k, count = self.kernels, len(self.gate_up)
        h = k.rms_norm(x.x, self.norm, self.eps)
        scores = k.fused_linear(h, self.router, out_dtype=torch.float32)
        if self.shared is not None:
            always = self.shared(Residual(h), None).x.mul_(scores[:, count:].sigmoid())
            residual = always if residual is None else residual.add_(always)
        return Residual(k.experts(h, scores[:, :count], self.gate_up, self.down, self.used,
                                  self.normalised, residual, self.gelu))


@dataclass(frozen=True, slots=True)
class DeviceLayer:
    """One layer; matrices are packed for `DeviceKernels.fused_linear`.

    unit: whether the weights of `attention_norm` are one.
    attention_post, feed_post: norms of what is added to the residual, where there are any.
    """

    attention_norm: Tensor
    unit: bool
    qkv: Any
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Added
    attention_post: Tensor | None
    feed: GatedFeed | ExpertFeed
    feed_post: Tensor | None


def read_layer(c: LlamaConfig, read: DeviceReader, n: int) -> DeviceLayer:
    """The weights of layer `n`."""
    at = f"model.layers.{n}"
    attention = f"{at}.self_attn"
    qkv = [f"{attention}.{p}_proj" for p in "qkv"]
    norms = [read.tensor(f"{attention}.{p}_norm.weight") if c.qk_norm else None for p in "qk"]
    post, feed_norm = None, "post_attention_layernorm"
    if c.post_norms:
        post, feed_norm = read.norm(f"{at}.{feed_norm}.weight"), "pre_feedforward_layernorm"
    packed, norm, unit = read.after_norm(f"{at}.input_layernorm.weight",
                                         *(f"{name}.weight" for name in qkv))
    return DeviceLayer(
        attention_norm=norm, unit=unit, qkv=packed, qkv_bias=read.bias(*qkv),
        q_norm=norms[0], k_norm=norms[1], out=_added(read, f"{attention}.o_proj"),
        attention_post=post, feed=_feed(c, read, n, f"{at}.{feed_norm}.weight"),
        feed_post=read.norm(f"{at}.post_feedforward_layernorm.weight") if c.post_norms else None)


def _added(read: DeviceReader, name: str) -> Added:
    return Added(read.kernels, read.matrix(f"{name}.weight"), read.bias(name))


def _feed(c: LlamaConfig, read: DeviceReader, n: int, norm: str) -> GatedFeed | ExpertFeed:
    at, gelu = f"model.layers.{n}.mlp", c.activation != "silu"

    def gated(name: str, norm: str | None) -> GatedFeed:
        both = [f"{name}.{part}_proj" for part in ("gate", "up")]
        # What gate and up give is in the order that down wants, so that nothing is moved later.
        down, order = read.ordered(f"{name}.down_proj.weight")
        names = [f"{part}.weight" for part in both]
        weights, unit = None, False
        if norm is None:
            packed = read.matrix(*names, order=order)
        else:
            packed, weights, unit = read.after_norm(norm, *names, order=order)
        return GatedFeed(read.kernels, weights, unit, c.rms_eps, packed,
                         read.bias(*both, order=order),
                         Added(read.kernels, down, read.bias(f"{name}.down_proj")), gelu)

    if not c.has_experts(n):
        return gated(at, norm)
    e = c.experts
    assert e is not None
    gates = [f"{at}.gate.weight"] + [f"{at}.shared_expert_gate.weight"] * bool(e.shared_size)
    own = [f"{at}.experts.{k}" for k in range(e.count)]
    return ExpertFeed(
        read.kernels, read.norm(norm), c.rms_eps, read.matrix(*gates),
        read.stacked([[f"{name}.gate_proj.weight", f"{name}.up_proj.weight"] for name in own]),
        read.stacked([[f"{name}.down_proj.weight"] for name in own]), e.used, e.normalised, gelu,
        gated(f"{at}.shared_expert", None) if e.shared_size else None)
