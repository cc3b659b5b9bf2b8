"""Rotary frequencies of a model: plain ones, or scaled for longer contexts.

Sources: YaRN, Peng et al. (2023), for "linear", "dynamic" and "yarn"; the Llama 3.1 release for
"llama3".  What is rotated is not known here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sglc.kernels.rope import rope_frequencies
from sglc.runtime.models.shape import LlamaConfig, RopeScaling


class Rope:
    """The frequencies of one model; `scale` is what cosines and sines are multiplied with.

    factors: the divisors of a model whose scaling is of the kind "factors".
    """

    def __init__(self, config: LlamaConfig, factors: Tensor | None = None) -> None:
        self._dim, self._theta = config.head_dim, config.rope_theta
        self._scaling = scaling = config.rope_scaling
        self.scale = 1.0 if scaling is None else scaling.attention
        plain = rope_frequencies(self._dim, self._theta)
        if scaling is None or scaling.kind == "dynamic":
            self._fixed = plain
        elif scaling.kind == "linear":
            self._fixed = plain / scaling.factor
        elif scaling.kind == "llama3":
            self._fixed = _llama3(plain, scaling)
        elif scaling.kind == "yarn":
            self._fixed = _yarn(plain, scaling, self._dim, self._theta)
        else:
            assert scaling.kind == "factors" and factors is not None
            self._fixed = plain / factors.float()

    def frequencies(self, positions: Tensor) -> Tensor:
        """Radians a position, float32, on the positions' device: (head_dim / 2,), or a row for
        each of the positions, (T, head_dim / 2), if they depend on it.

        They do in "dynamic" scaling: a token at position p is rotated as if its sequence ended
        with it.  So a key is the same whoever shares it and however its prompt was cut; it is
        what a model gives that is fed token by token.
        """
        s = self._scaling
        if s is None or s.kind != "dynamic":
            return self._fixed.to(positions.device)
        lengths = (positions + 1).clamp(min=s.original).double()
        stretch = s.factor * lengths / s.original - (s.factor - 1)
        bases = (self._theta * stretch ** (self._dim / (self._dim - 2))).float()
        even = torch.arange(0, self._dim, 2, device=positions.device).float()
        return 1.0 / bases[:, None] ** (even / self._dim)


def _llama3(plain: Tensor, s: RopeScaling) -> Tensor:
    """Long waves are scaled, short ones are not, and those between are a mixture."""
    fits = s.original / (2 * math.pi / plain)  # how often a wave fits into the original context
    share = ((fits - s.low) / (s.high - s.low)).clamp(0, 1)
    return (1 - share) * plain / s.factor + share * plain


def _yarn(plain: Tensor, s: RopeScaling, dim: int, theta: float) -> Tensor:
    def dimension(turns: float) -> float:
        """The dimension whose wave fits `turns` times into the original context."""
        return dim * math.log(s.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(s.high), dimension(s.low)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2).float() - low) / (high - low or 0.001)
    scaled = ramp.clamp(0, 1)
    return plain / s.factor * scaled + plain * (1 - scaled)
