"""4-bit weights in groups of columns: what they stand for, and the reference of their layout.

w = (code - zero) * scale; every group of columns has a zero and a scale in each row (GPTQ, Frantar
et al., 2023; AWQ, Lin et al., 2024).  How checkpoints store them is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """A matrix (out, in).

    codes: uint8 (out, in), 0 to 15.  scales: floating; zeros: uint8, 0 to 16; both (out, groups).
    group_of: int64 (in,), the group of each column; None if groups are columns side by side.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group_of: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix itself, computed in float32."""
        if self.group_of is not None:
            zeros, scales = (t[:, self.group_of].float() for t in (self.zeros, self.scales))
            return self.codes.float().sub_(zeros).mul_(scales).to(dtype)
        parts = self.codes.unflatten(1, (self.scales.shape[1], -1)).float()
        parts.sub_(self.zeros[:, :, None].float()).mul_(self.scales[:, :, None].float())
        return parts.flatten(1).to(dtype)

    def part(self, rows: tuple[int, int] | None, columns: tuple[int, int] | None) -> Int4Matrix:
        """Some rows and columns (from, up to; None for all)."""
        r, c = slice(*rows or (0, None)), slice(*columns or (0, None))
        codes, scales, zeros = self.codes[r, c], self.scales[r], self.zeros[r]
        size = self.shape[1] // scales.shape[1]
        left, right, _ = c.indices(self.shape[1])
        if self.group_of is not None:
            return Int4Matrix(codes, scales, zeros, self.group_of[c])
        if left % size == right % size == 0:
            groups = slice(left // size, right // size)
            return Int4Matrix(codes, scales[:, groups], zeros[:, groups])
        if size == self.shape[1]:
            return Int4Matrix(codes, scales, zeros)
        group_of = torch.arange(left, right, device=codes.device) // size
        return Int4Matrix(codes, scales, zeros, group_of)

    def __getitem__(self, rows: Tensor) -> Int4Matrix:
        """These rows, in this order."""
        return Int4Matrix(self.codes[rows], self.scales[rows], self.zeros[rows], self.group_of)

    def ordered(self) -> tuple[Int4Matrix, Tensor | None]:
        """The matrix with the columns of each group side by side, and which of the columns here
        each of its is (None: they stay); the product wants x in that order too."""
        if self.group_of is None:
            return self, None
        groups, order = self.group_of.sort(stable=True)
        there = self.scales.shape[1]
        even = torch.arange(self.shape[1], device=order.device) // -(-self.shape[1] // there)
        left = None if torch.equal(groups, even) else groups
        if torch.equal(self.group_of, groups):  # nothing to be moved
            return Int4Matrix(self.codes, self.scales, self.zeros, left), None
        return Int4Matrix(self.codes[:, order], self.scales, self.zeros, left), order


def stacked_int4(parts: Sequence[Int4Matrix | None]) -> Int4Matrix | None:
    """Matrices of one input, one above the other; None if they cannot be one: some are no 4-bit
    matrices, or their columns are grouped differently."""
    there = [part for part in parts if part is not None]
    if not there or len(there) < len(parts):
        return None
    first = there[0]
    for part in there[1:]:
        alike = part.shape[1:] == first.shape[1:] and part.scales.dtype is first.scales.dtype \
            and part.scales.shape[1] == first.scales.shape[1]
        same = part.group_of is first.group_of is None or (
            part.group_of is not None and first.group_of is not None
            and torch.equal(part.group_of, first.group_of))
        if not (alike and same):
            return None
    if len(there) == 1:
        return first
    return Int4Matrix(torch.cat([p.codes for p in there]), torch.cat([p.scales for p in there]),
                      torch.cat([p.zeros for p in there]), first.group_of)


def random_int4(shape: tuple[int, ...], group_size: int, dtype: torch.dtype,
                random: torch.Generator, act_order: bool = False) -> Int4Matrix:
    """Random codes, with scales that make weights as large as those of models.

    group_size: 0 for all columns.  Scales are of `dtype`.  act_order: the columns of a group lie
    anywhere, in the same places in all matrices of one width.
    """
    rows, columns = shape
    groups = columns // (group_size or columns)
    where = random.device

    def draw(low: int, high: int, width: int) -> Tensor:
        return torch.randint(low, high, (rows, width), dtype=torch.uint8, device=where,
                             generator=random)

    scales = torch.rand(rows, groups, device=where, generator=random).add_(0.5).mul_(0.0043)
    group_of = None
    if act_order:
        order = torch.randperm(columns, generator=torch.Generator().manual_seed(columns))
        group_of = (order * groups // columns).to(where)
    return Int4Matrix(draw(0, 16, columns), scales.to(dtype), draw(7, 10, groups), group_of)


def pack_int4_torch(matrix: Int4Matrix) -> Int4Matrix:
    """The matrix as `fused_linear_torch` wants it: as it is."""
    return matrix


def pack_int4_never(matrix: Int4Matrix) -> None:
    """For kernels that multiply dense weights alone."""
    return None
