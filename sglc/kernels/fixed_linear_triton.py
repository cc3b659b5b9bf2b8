"""`fused_linear` as one form of kernel for any number of rows: a row's result does not depend on
the rows beside it, nor on where among them it is.

On Hopper by `hopper_gemm`, whose forms all add in one order; elsewhere the tile is chosen by the
weight's shape alone, each program sums over all columns in one order, and nothing is split.  Slower
than what is chosen by the number of rows (`fused_linear_triton`), on Hopper for few rows alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.fused_linear_triton import PackedWeight
from sglc.kernels.hopper_gemm_cuda import hopper_gemm, hopper_gemm_add, row_sums, takes
from sglc.kernels.logprobs_triton import logprobs_in_parts
from sglc.kernels.residual import Residual
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.rope_store_triton import rope_store_by
from sglc.kernels.silu_mul_triton import gate_mul

_GROUP = 8  # tiles of rows whose programs run side by side, so that they share the weight


class FixedConfig(NamedTuple):
    """A tile's rows and outputs, columns at a time, loads under way, and warps."""

    rows: int
    outs: int
    columns: int
    stages: int
    warps: int


@triton.jit(do_not_specialize=["lines"])
def _kernel(x_ptr, w_ptr, residual_ptr, out_ptr, lines, width, outs, ROWS: tl.constexpr,
            OUTS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
            EVEN: tl.constexpr, RESIDUAL: tl.constexpr):
    pid = tl.program_id(0)
    across = tl.cdiv(outs, OUTS)
    group = pid // (GROUP * across) * GROUP
    high = tl.minimum(tl.cdiv(lines, ROWS) - group, GROUP)
    inner = pid % (GROUP * across)
    line = (group + inner % high) * ROWS + tl.arange(0, ROWS)
    out = inner // high * OUTS + tl.arange(0, OUTS)
    at = tl.arange(0, COLUMNS)
    # What lies beyond the end is read from the last one and not stored.
    x_at = x_ptr + tl.minimum(line, lines - 1).to(tl.int64)[:, None] * width
    w_at = w_ptr + tl.minimum(out, outs - 1).to(tl.int64)[None, :] * width
    y = tl.zeros([ROWS, OUTS], tl.float32)
    for column in tl.range(0, width, COLUMNS, num_stages=STAGES):
        here = column + at
        if EVEN:
            x = tl.load(x_at + here[None, :])
            w = tl.load(w_at + here[:, None])
        else:
            x = tl.load(x_at + here[None, :], mask=(here < width)[None, :], other=0.0)
            w = tl.load(w_at + here[:, None], mask=(here < width)[:, None], other=0.0)
        y = tl.dot(x, w, y, input_precision="ieee")
    to = line.to(tl.int64)[:, None] * outs + out[None, :]
    inside = (line < lines)[:, None] & (out < outs)[None, :]
    if RESIDUAL:
        y += tl.load(residual_ptr + to, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + to, y.to(out_ptr.dtype.element_ty), mask=inside)


def fixed_config(outs: int, dtype: torch.dtype) -> FixedConfig:
    """The configuration for a weight of `outs` rows."""
    if dtype is torch.float32:
        return FixedConfig(32, 32, 32, 2, 4)
    return FixedConfig(128, 64 if outs <= 8192 else 128, 64, 4, 8)


def fixed_linear(x: Tensor | Residual, weight: PackedWeight, norm: Tensor | None = None,
                 eps: float = 0.0, residual: Tensor | None = None, gated: bool = False,
                 out_dtype: torch.dtype | None = None, gelu: bool = False) -> Tensor:
    """As `fused_linear_torch`, of contiguous tensors and a weight from `pack_triton`."""
    x, squares = x if isinstance(x, Residual) else (x, None)
    w = weight.weight
    outs, width = w.shape
    hopper = takes(x, w, out_dtype)
    if squares is not None and norm is not None and hopper:
        return hopper_gemm(Residual(x, squares), w, residual, gated, out_dtype, gelu, eps)
    if norm is not None:
        x = rms_norm_triton(x, norm, eps)
    if hopper:
        return hopper_gemm(x, w, residual, gated, out_dtype, gelu)
    kind = x.dtype if gated else out_dtype or x.dtype
    y = x.new_empty(len(x), outs, dtype=kind) if residual is None else residual
    if len(x):
        c = fixed_config(outs, x.dtype)
        _kernel[(triton.cdiv(len(x), c.rows) * triton.cdiv(outs, c.outs),)](
            x, w, y, y, len(x), width, outs, ROWS=c.rows, OUTS=c.outs, COLUMNS=c.columns,
            STAGES=c.stages, GROUP=_GROUP, EVEN=width % c.columns == 0,
            RESIDUAL=residual is not None, num_warps=c.warps)
    return gate_mul(y, gelu).to(out_dtype or x.dtype) if gated else y


def add_linear_fixed(x: Tensor, weight: PackedWeight, residual: Tensor,
                     squares: bool = False) -> Residual:
    """As `add_linear_torch`, of contiguous tensors and a weight from `pack_triton`."""
    if squares and row_sums(residual.shape[1]) and takes(x, weight.weight):
        return hopper_gemm_add(x, weight.weight, residual)
    return Residual(fixed_linear(x, weight, residual=residual))


def rope_linear_fixed(x: Tensor | Residual, weight: PackedWeight, norm: Tensor | None, eps: float,
                      positions: Tensor, slots: Tensor, table: Tensor, pool: Tensor,
                      q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                      bias: Tensor | None = None) -> Tensor:
    """As `rope_linear_triton`, alike for any number of tokens."""
    return rope_store_by(8, fixed_linear(x, weight, norm, eps), positions, slots, table, pool,
                         q_norm, k_norm, eps, bias)


def logprobs_fixed(logits: Tensor, tokens: Tensor, top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """As `logprobs_triton`, alike for any number of rows."""
    return logprobs_in_parts(logits, tokens, top, 16)
