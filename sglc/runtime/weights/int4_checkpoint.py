"""The 4-bit layers of AWQ and GPTQ checkpoints, under the names that their matrices would have.

Layouts, of a layer with `in` columns and `out` rows (eight codes a word, lowest bits first):
    AWQ (AutoAWQ's "gemm"): qweight (in, out / 8), qzeros (groups, out / 8), a word's codes being
        rows 0, 2, 4, 6, 1, 3, 5, 7 of its eight; scales (groups, out).
    GPTQ (AutoGPTQ, GPTQModel): qweight (in / 8, out), a word's codes being columns; qzeros
        (groups, out / 8), one less than what they stand for unless the format is `gptq_v2`;
        scales (groups, out); g_idx (in,), the group of each column.
What the matrices are for is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch

from sglc.errors import ModelError
from sglc.kernels.int4 import Int4Matrix
from sglc.runtime.weights.source import Part

if TYPE_CHECKING:
    from torch import Tensor

    from sglc.runtime.models.quantization import Int4Scheme
    from sglc.runtime.weights.source import WeightSource

_PARTS = {"awq": ("qweight", "qzeros", "scales"), "gptq": ("qweight", "qzeros", "scales", "g_idx")}
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # where in a word the code of each row is


class RawWeights(Protocol):
    """A folder's tensors, as they are stored."""

    path: Path
    config: dict[str, Any]

    def names(self) -> Set[str]: ...

    def read(self, name: str, part: Part | None = None) -> Tensor: ...

    def raw(self, name: str) -> Tensor: ...

    def place(self, name: str) -> str: ...

    def n_bytes(self, name: str) -> int: ...


class Int4Checkpoint:
    """A `WeightSource` over a folder: `layer.weight` is what `layer.qweight` and the tensors
    beside it stand for.

    `read` gives it dense, in float32; `int4` as it is.  expected: the names that the model has;
    biases of quantized layers that are not among them, which some writers add, must be zeros.
    Raises ModelError (SGLC504), which names file and tensor, where parts are missing or do not
    fit each other.
    """

    mapped = True

    def __init__(self, folder: RawWeights, scheme: Int4Scheme, expected: Collection[str]) -> None:
        self.path, self.config = folder.path, folder.config
        self._folder = folder
        self._scheme = scheme
        there = folder.names()
        parts = _PARTS[scheme.method]
        self._layers: dict[str, dict[str, str]] = {}
        for name in sorted(there):
            layer, _, part = name.rpartition(".")
            if part in _PARTS["gptq"]:
                self._layers.setdefault(f"{layer}.weight", {})[part] = name
        for weight, own in self._layers.items():
            layer = weight.removesuffix(".weight")
            if missing := [part for part in parts if part not in own]:
                self._fail(f"there is no {layer}.{missing[0]}", next(iter(own.values())))
            if weight in there:
                self._fail(f"{layer} has both a weight and a qweight", weight)
            bias = f"{layer}.bias"
            if bias in there and bias not in expected:
                if folder.read(bias).any():
                    self._fail(f"{bias} is not zero, but the model has no such bias", bias)
                own["bias"] = bias
        stored = {name for own in self._layers.values() for name in own.values()}
        self._names = (there - stored) | self._layers.keys()

    def names(self) -> Set[str]:
        return self._names

    def read(self, name: str, part: Part | None = None) -> Tensor:
        matrix = self.int4(name, part)
        return self._folder.read(name, part) if matrix is None else matrix.dense(torch.float32)

    def place(self, name: str) -> str:
        return self._folder.place(self._layers.get(name, {"qweight": name})["qweight"])

    def n_bytes(self, name: str) -> int:
        own = self._layers.get(name, {"": name})
        return sum(self._folder.n_bytes(part) for part in own.values())

    def int4(self, name: str, part: Part | None = None,
             device: torch.device | None = None) -> Int4Matrix | None:
        """The matrix, or a part of it, in 4 bits, unpacked on `device`; None if it is not
        quantized."""
        own = self._layers.get(name)
        if own is None:
            return None
        awq = self._scheme.method == "awq"
        words, zeros, scales = (self._folder.raw(own[p]) for p in ("qweight", "qzeros", "scales"))
        rows, columns, size = self._sizes(own, words, zeros, scales)
        group_of = None if awq else self._groups(own["g_idx"], columns, size)
        top, bottom, left, right = 0, rows, 0, columns
        if part is not None and part.whole == (rows, columns):  # else for the reader to refuse
            top, bottom = part.rows or (0, rows)
            left, right = part.columns or (0, columns)
        in_order = group_of is None and size < columns
        if top % 8 or bottom % 8 or (not awq and (left % 8 or right % 8)) or (
                in_order and (left % size or right % size)):  # no whole words or groups
            matrix = self.int4(name, None, device)
            return matrix and matrix.part((top, bottom), (left, right))
        groups = slice(left // size, right // size) if in_order else slice(None)
        r, c = slice(top // 8, bottom // 8), slice(left // 8, right // 8)
        words = words[left:right, r] if awq else words[c, top:bottom]
        words, zeros, scales = (t.to(device, copy=True) for t in (
            words, zeros[groups, r], scales[groups, top:bottom]))
        codes = _rows(words, awq) if awq else _columns(words)
        return Int4Matrix(
            codes.t().contiguous(), scales.t().contiguous(),
            (_rows(zeros, awq) + self._scheme.zero_offset).t().contiguous(),
            None if group_of is None else group_of[left:right].to(device))

    def _sizes(self, own: dict[str, str], words: Tensor, zeros: Tensor, scales: Tensor
               ) -> tuple[int, int, int]:
        """Rows, columns and columns of a group, of tensors that fit each other."""
        for part, tensor in (("qweight", words), ("qzeros", zeros)):
            if tensor.dtype is not torch.int32:
                self._fail(f"{own[part]} has the type {tensor.dtype}, not int32", own[part])
        if not scales.is_floating_point():
            self._fail(f"{own['scales']} has the type {scales.dtype}", own["scales"])
        if words.dim() != 2 or not words.numel():
            self._fail(f"{own['qweight']} has the shape {list(words.shape)}", own["qweight"])
        rows, columns = words.shape[1], words.shape[0] * 8
        if self._scheme.method == "awq":
            rows, columns = words.shape[1] * 8, words.shape[0]
        size = self._scheme.group_size or columns
        if columns % size or rows % 8:
            self._fail(f"{own['qweight']} has {columns} columns and {rows} rows, which "
                       f"{self._scheme.place}: group_size {size} and words of 8 do not divide",
                       own["qweight"])
        for part, tensor, shape in (("qzeros", zeros, [columns // size, rows // 8]),
                                    ("scales", scales, [columns // size, rows])):
            if list(tensor.shape) != shape:
                self._fail(f"{own[part]} has the shape {list(tensor.shape)} instead of {shape}, "
                           f"as {self._scheme.place}: group_size {size} has it", own[part])
        return rows, columns, size

    def _groups(self, name: str, columns: int, size: int) -> Tensor | None:
        """The group of each column; None if they are in order."""
        index = self._folder.raw(name)
        if index.is_floating_point() or list(index.shape) != [columns]:
            self._fail(f"{name} has the type {index.dtype} and the shape {list(index.shape)} "
                       f"instead of {columns} integers", name)
        index = index.long()
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= columns // size:
            self._fail(f"{name} names the groups {low} to {high} of {columns // size}", name)
        return None if torch.equal(index, torch.arange(columns) // size) else index

    def _fail(self, why: str, name: str) -> NoReturn:
        raise ModelError("SGLC504", "the quantized weights cannot be used",
                         why=f"{why}, in {self._folder.place(name)}")


def int4_of(source: WeightSource, name: str, part: Part | None = None,
            device: torch.device | None = None) -> Int4Matrix | None:
    """The matrix, or a part of it, in 4 bits, if the source has it so."""
    read = getattr(source, "int4", None)
    return None if read is None else read(name, part, device)


def _nibbles(words: Tensor) -> Tensor:
    """uint8 (..., 8): the codes of each word of int32, lowest bits first."""
    octets = words.contiguous().view(torch.uint8).unflatten(-1, (-1, 4))
    return torch.stack((octets & 15, octets >> 4), -1).flatten(-2)


def _columns(words: Tensor) -> Tensor:
    """uint8 (8 n, m) of words (n, m), whose codes lie one below the other."""
    return _nibbles(words).transpose(1, 2).flatten(0, 1)


def _rows(words: Tensor, awq: bool) -> Tensor:
    """uint8 (n, 8 m) of words (n, m), whose codes lie side by side."""
    codes = _nibbles(words)
    return (codes[..., list(_AWQ_PLACES)] if awq else codes).flatten(1)
