"""The feed-forward half of a layer: a gated MLP, or a mixture of them (Shazeer et al., 2017;
Mixtral, Jiang et al., 2024).

Where weights come from is not known here.  Activations are float32 (tokens, features).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class GatedMLP:
    """down(act(gate) * up); `gate_up` computes both, side by side."""

    gate_up: Linear
    down: Linear
    act_mul: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.act_mul(self.gate_up(x)))


@dataclass(frozen=True, slots=True)
class ExpertMLP:
    """The weighted sum of the `used` experts that the router scores highest for each token.

    router: float32 (experts, H).  normalised: see `shape.Experts`.
    shared, shared_gate: an MLP for every token, times the sigmoid of its gate, float32 (1, H).
    """

    router: Tensor
    experts: tuple[GatedMLP, ...]
    used: int
    normalised: bool
    shared: GatedMLP | None = None
    shared_gate: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        scores = (x @ self.router.t()).softmax(-1)
        weights, chosen = scores.topk(self.used, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        # Every expert computes all of its tokens at once.  The sum over a token's experts is
        # taken afterwards, in the order of their scores, so it is the same in any batch.
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts)).tolist()
        parts = x.new_empty(len(x) * self.used, x.shape[1])
        start = 0
        for expert, count in zip(self.experts, counts, strict=True):
            if count:
                places = order[start:start + count]
                parts[places] = expert(x[places // self.used])
                start += count
        out = torch.einsum("tk,tkh->th", weights, parts.view(len(x), self.used, -1))
        if self.shared is not None and self.shared_gate is not None:
            out += (x @ self.shared_gate.t()).sigmoid() * self.shared(x)
        return out
