"""A mixture of gated MLPs (Shazeer et al., 2017): each token goes through the few that a router
scores highest for it."""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.gelu_mul import gelu_mul_torch
from sglc.kernels.silu_mul import silu_mul_torch


def experts_torch(x: Tensor, scores: Tensor, gate_up: Tensor, down: Tensor, used: int,
                  normalised: bool, residual: Tensor | None = None, gelu: bool = False) -> Tensor:
    """The weighted sum of the `used` experts of the highest scores, plus `residual`, (T, H).

    x: (T, H).  scores: float32 (T, E), before their softmax, whose values are the weights;
    normalised: the weights of a token's experts are scaled to a sum of 1.
    gate_up: (E, 2 I, H), gates above ups.  down: (E, H, I).  residual: (T, H), updated in place
    and returned.  gelu: the activation is GELU, by tanh, instead of SiLU.
    Sums are float32, in the order of a token's scores.
    """
    weights, chosen = scores.softmax(-1).topk(used, dim=-1)
    if normalised:
        weights = weights / weights.sum(-1, keepdim=True)
    parts = x.new_empty(len(x), used, x.shape[1], dtype=torch.float32)
    for expert in range(len(gate_up)):
        token, place = (chosen == expert).nonzero(as_tuple=True)
        if len(token):
            both = torch.nn.functional.linear(x[token], gate_up[expert])
            h = (gelu_mul_torch if gelu else silu_mul_torch)(both.float()).to(x.dtype)
            parts[token, place] = torch.nn.functional.linear(h, down[expert]).float()
    out = torch.einsum("tk,tkh->th", weights, parts)
    if residual is None:
        return out.to(x.dtype)
    residual += out
    return residual
