"""ggml's tensor types and their exact decoding to float32.

Each decoder takes the blocks of a tensor as uint8 (n, bytes a block) and gives float32
(n, values a block), in the operation order of ggml's reference code, so results are equal to it
bit for bit.  Block layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block, as float32 (n, 1)."""
    return blocks[:, at:at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """float32 (n, 2 m) of uint8 (n, m): all low halves, then all high halves; m % 4 == 0."""
    words = packed.contiguous().view(torch.int32)  # four bytes at once: a third of the time
    low, high = words & 0x0F0F0F0F, (words >> 4) & 0x0F0F0F0F
    return torch.cat((low, high), 1).view(torch.uint8).float()


def _fifth_bits(packed: Tensor) -> Tensor:
    """float32 (n, 32) of 4 bytes a block, a bit each, lowest first, worth 16."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (((packed[:, :, None] >> shifts) & 1) << 4).flatten(1).float()


def _f32(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float32).clone()


def _f16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float16).float()


def _bf16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.bfloat16).float()


def _q4_0(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 2:]).sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[:, 4:]).mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, 6:]).add_(_fifth_bits(blocks[:, 2:6]))
    return q.sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, 8:]).add_(_fifth_bits(blocks[:, 4:8]))
    return q.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8) * _half(blocks, 0)


def _k_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """6-bit scales and minima, float32 (n, 8) each, of the 12 bytes that Q4_K and Q5_K use."""
    d, m, both = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = torch.cat((d & 63, (both & 15) | ((d >> 2) & 48)), 1)
    minimum = torch.cat((m & 63, (both >> 4) | ((m >> 2) & 48)), 1)
    return scale.float(), minimum.float()


def _k_quant(blocks: Tensor, values: Tensor) -> Tensor:
    """d * scale * values - dmin * minimum of values (n, 8, 32)."""
    scale, minimum = _k_scales(blocks[:, 4:16])
    d, m = _half(blocks, 0) * scale, _half(blocks, 2) * minimum
    return values.mul_(d[:, :, None]).sub_(m[:, :, None]).flatten(1)


def _k_nibbles(packed: Tensor) -> Tensor:
    """float32 (n, 8, 32): every 32 bytes hold two groups, in their low and high halves."""
    return _nibbles(packed.reshape(-1, 32)).view(-1, 8, 32)


def _q4_k(blocks: Tensor) -> Tensor:
    return _k_quant(blocks, _k_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Tensor) -> Tensor:
    high = (blocks[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None]) & 1
    return _k_quant(blocks, _k_nibbles(blocks[:, 48:]).add_((high << 4).float()))


def _q6_k(blocks: Tensor) -> Tensor:
    low, high = blocks[:, :128].view(-1, 2, 1, 64), blocks[:, 128:192].view(-1, 2, 1, 32)
    low = torch.cat((low & 15, low >> 4), 2).view(-1, 8, 32)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    q = low | (((high >> shifts) & 3) << 4).view(-1, 8, 32)
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    return q.float().sub_(32).view(-1, 16, 16).mul_(scale[:, :, None]).flatten(1)


@dataclass(frozen=True, slots=True)
class GgmlType:
    """`block` values are stored in `n_bytes` bytes."""

    name: str
    block: int
    n_bytes: int
    decode: Callable[[Tensor], Tensor]


GGML_TYPES: dict[int, GgmlType] = {
    0: GgmlType("F32", 1, 4, _f32),
    1: GgmlType("F16", 1, 2, _f16),
    2: GgmlType("Q4_0", 32, 18, _q4_0),
    3: GgmlType("Q4_1", 32, 20, _q4_1),
    6: GgmlType("Q5_0", 32, 22, _q5_0),
    7: GgmlType("Q5_1", 32, 24, _q5_1),
    8: GgmlType("Q8_0", 32, 34, _q8_0),
    12: GgmlType("Q4_K", 256, 144, _q4_k),
    13: GgmlType("Q5_K", 256, 176, _q5_k),
    14: GgmlType("Q6_K", 256, 210, _q6_k),
    30: GgmlType("BF16", 1, 2, _bf16),
}


def dequantize(raw: Any, type_id: int) -> Tensor:
    """float32 (values,), freshly allocated, of a writable uint8 numpy array of whole blocks."""
    kind = GGML_TYPES[type_id]
    return kind.decode(torch.from_numpy(raw).view(-1, kind.n_bytes)).view(-1)
