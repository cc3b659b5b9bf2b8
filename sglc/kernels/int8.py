"""y = x W^T with weights of 8 bits, one scale a row, on the CPU: a quarter of float32's reading.

As with bfloat16 weights, x and the result are rounded to bfloat16, whatever the number of rows.
Few rows of x are multiplied by PyTorch's kernel for such weights, which decodes them as it goes;
for many they are decoded once a product, a slice at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sglc.kernels.linear import linear_torch, onednn_available

_FEW = 32  # rows of x
_SLICE = 1 << 20  # weights decoded at a time, so that they stay in the cache


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """codes: int8 (out, in); scales: bfloat16 (out,).  w = code * scale."""

    codes: Tensor
    scales: Tensor

    def take(self, rows: Tensor) -> Int8Weight:
        """The weight of these rows alone."""
        return Int8Weight(self.codes[rows], self.scales[rows])


def pack_int8(weight: Tensor) -> Int8Weight:
    """The weight (out, in) rounded to 8 bits, -127 to 127, by the largest of each row."""
    weight = weight.float()
    scales = (weight.abs().amax(1) / 127).bfloat16()
    steps = scales.float().masked_fill(scales == 0, 1)  # a row of zeros
    return Int8Weight((weight / steps[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales)


def linear_int8(x: Tensor, weight: Int8Weight) -> Tensor:
    """float32 (T, out) of float32 x (T, in)."""
    x = x.bfloat16()
    outs, width = weight.codes.shape
    if 0 < len(x) <= _FEW and outs % 4 == 0 and width % 32 == 0:  # what that kernel is made for
        y: Tensor = torch.ops.aten._weight_int8pack_mm(x.contiguous(), weight.codes,
                                                       weight.scales)
        return y.float()
    # Codes are exact in bfloat16.
    many = len(x) > _FEW and _multiplies_bfloat16()
    kind = torch.bfloat16 if many else torch.float32
    step = max(1, _SLICE // width)
    parts = [linear_torch(x.float(), codes.to(kind)) for codes in weight.codes.split(step)]
    return torch.cat(parts, 1).mul_(weight.scales.float()).bfloat16().float()


@cache
def _multiplies_bfloat16() -> bool:
    return onednn_available(torch.bfloat16)
