"""`experts` on a GPU: two grouped products and a weighted sum, as Triton kernels.

The pairs of a token and one of its experts are sorted by expert and cut into tiles of one expert.
How many tiles there are is known on the device alone: the grid has room for the most there can
be, and a program finds its tile from where the experts begin.  So a captured graph serves any
routing.  As elsewhere the transpose is computed, W x^T, for matrix units want many rows on the
left, and a token's rows are few.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs
from sglc.kernels.route_triton import Routing, route_triton
from sglc.kernels.silu_mul_triton import gate_times

_GROUP = 8  # tiles whose programs run side by side, so that they share the weight


class ExpertsConfig(NamedTuple):
    """A tile's pairs, rows of the weight (of gate and of up each, if gated), columns at a time,
    loads under way, and warps."""

    lines: int
    rows: int
    columns: int
    stages: int
    warps: int


@triton.jit
def _kernel(x_ptr, w_ptr, order_ptr, starts_ptr, out_ptr, width, outs, EXPERTS: tl.constexpr,
            BLOCK_E: tl.constexpr, USED: tl.constexpr, LINES: tl.constexpr, ROWS: tl.constexpr,
            COLUMNS: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr, EVEN: tl.constexpr,
            GATED: tl.constexpr, GELU: tl.constexpr, OVERLAP: tl.constexpr):
    """Grid (tiles at most * tiles of rows,).

    GATED: x has a row a token, and the activation of gates times ups is written a row a pair, in
    their order by expert.  Else x is that, and a pair's row is written where its number says.
    """
    wait_for_inputs(OVERLAP)
    e = tl.arange(0, BLOCK_E)
    begins = tl.load(starts_ptr + e, mask=e < EXPERTS, other=0)
    ends = tl.load(starts_ptr + 1 + e, mask=e < EXPERTS, other=0)
    tiles = (ends - begins + LINES - 1) // LINES
    last = tl.cumsum(tiles, 0)
    pid = tl.program_id(0)
    across = tl.cdiv(outs, ROWS)
    group = pid // (GROUP * across) * GROUP
    high = tl.minimum(tl.sum(tiles, 0) - group, GROUP)
    inner = pid % (GROUP * across)
    if inner < high * across:
        tile = group + inner % high
        expert = tl.sum((last <= tile).to(tl.int32), 0)
        mine = e == expert
        begin = tl.sum(tl.where(mine, begins + (tile - last + tiles) * LINES, 0), 0)
        end = tl.sum(tl.where(mine, ends, 0), 0)
        line = begin + tl.arange(0, LINES)
        there = line < end
        line = tl.minimum(line, end - 1)  # what lies beyond is read from the last and not stored
        pair = tl.load(order_ptr + line)
        source = line
        target = pair
        if GATED:
            source = pair // USED
            target = line
        row = inner // high * ROWS + tl.arange(0, ROWS)
        at = tl.arange(0, COLUMNS)
        x_at = x_ptr + source.to(tl.int64)[None, :] * width
        all_rows = outs * 2 if GATED else outs
        matrix = w_ptr + expert.to(tl.int64) * all_rows * width
        w_at = matrix + tl.minimum(row, outs - 1).to(tl.int64)[:, None] * width
        lower = outs.to(tl.int64) * width
        y = tl.zeros([ROWS, LINES], tl.float32)
        z = tl.zeros([ROWS, LINES], tl.float32)
        for column in tl.range(0, width, COLUMNS, num_stages=STAGES):
            here = column + at
            if EVEN:
                w = tl.load(w_at + here[None, :])
                x = tl.load(x_at + here[:, None])
            else:
                w = tl.load(w_at + here[None, :], mask=(here < width)[None, :], other=0.0)
                x = tl.load(x_at + here[:, None], mask=(here < width)[:, None], other=0.0)
            y = tl.dot(w, x, y, input_precision="ieee")
            if GATED:
                if EVEN:
                    v = tl.load(w_at + lower + here[None, :])
                else:
                    v = tl.load(w_at + lower + here[None, :], mask=(here < width)[None, :],
                                other=0.0)
                z = tl.dot(v, x, z, input_precision="ieee")
        if GATED:
            y = gate_times(y, z, GELU)
        to = target.to(tl.int64)[None, :] * outs + row[:, None]
        tl.store(out_ptr + to, y.to(out_ptr.dtype.element_ty),
                 mask=there[None, :] & (row < outs)[:, None])
    let_next_start(OVERLAP)


@triton.jit
def _sum_kernel(parts_ptr, weights_ptr, residual_ptr, out_ptr, width, USED: tl.constexpr,
                BLOCK: tl.constexpr, RESIDUAL: tl.constexpr, OVERLAP: tl.constexpr):
    """Grid (tokens, blocks of columns): the weighted sum of a token's parts."""
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(USED):
        weight = tl.load(weights_ptr + token * USED + k)
        part = tl.load(parts_ptr + (token * USED + k) * width + at, mask=inside, other=0.0)
        total += weight * part.to(tl.float32)
    if RESIDUAL:
        total += tl.load(residual_ptr + token * width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + token * width + at, total.to(out_ptr.dtype.element_ty), mask=inside)


def experts_config(pairs: int, experts: int, gated: bool, dtype: torch.dtype) -> ExpertsConfig:
    """The configuration for so many pairs: tiles hold about as many as an expert has."""
    if dtype is torch.float32:
        return ExpertsConfig(16, 32, 32, 2, 4)
    each = -(-pairs // experts)
    if each <= 16:
        return ExpertsConfig(16, 64 if gated else 32, 64 if gated else 128, 4, 4)
    if each <= 32:
        return ExpertsConfig(32, 64, 64, 4, 4)
    if each <= 64:
        return ExpertsConfig(64, 64 if gated else 128, 64, 4, 4)
    return ExpertsConfig(128, 64 if gated else 128, 64, 3, 8)


def fixed_experts_config(dtype: torch.dtype) -> ExpertsConfig:
    """The configuration for any number of pairs."""
    return ExpertsConfig(16, 32, 32, 2, 4) if dtype is torch.float32 else (
        ExpertsConfig(64, 64, 64, 3, 4))


def grouped_product(x: Tensor, weight: Tensor, routing: Routing, gated: bool, gelu: bool,
                    c: ExpertsConfig) -> Tensor:
    """The products of every pair of a routing, (T * K, out), as the kernel has them.

    gated: x is (T, in) and weight (E, 2 out, in); else x is (T * K, in), and weight (E, out, in).
    """
    count, outs, width = weight.shape
    outs = outs // 2 if gated else outs
    pairs = len(routing.order)
    out = x.new_empty(pairs, outs)
    most = min(count, pairs)
    tiles = most + (pairs - most) // c.lines
    _kernel[(tiles * triton.cdiv(outs, c.rows),)](
        x, weight, routing.order, routing.starts, out, width, outs, EXPERTS=count,
        BLOCK_E=triton.next_power_of_2(count), USED=routing.weights.shape[1], LINES=c.lines,
        ROWS=c.rows, COLUMNS=c.columns, STAGES=c.stages, GROUP=_GROUP,
        EVEN=width % c.columns == 0, GATED=gated, GELU=gelu, num_warps=c.warps, **overlap(x))
    return out


def experts_triton(x: Tensor, scores: Tensor, gate_up: Tensor, down: Tensor, used: int,
                   normalised: bool, residual: Tensor | None = None, gelu: bool = False) -> Tensor:
    """As `experts_torch`, of tensors that are contiguous (scores: within a row)."""
    pairs, count = len(x) * used, len(gate_up)
    configs = [experts_config(pairs, count, gated, x.dtype) for gated in (True, False)]
    return _experts(x, scores, gate_up, down, used, normalised, residual, gelu, configs, False)


def experts_fixed(x: Tensor, scores: Tensor, gate_up: Tensor, down: Tensor, used: int,
                  normalised: bool, residual: Tensor | None = None, gelu: bool = False) -> Tensor:
    """As `experts_triton`, alike for any number of tokens."""
    configs = [fixed_experts_config(x.dtype)] * 2
    return _experts(x, scores, gate_up, down, used, normalised, residual, gelu, configs, True)


def _experts(x: Tensor, scores: Tensor, gate_up: Tensor, down: Tensor, used: int,
             normalised: bool, residual: Tensor | None, gelu: bool,
             configs: list[ExpertsConfig], fixed: bool) -> Tensor:
    out = torch.empty_like(x) if residual is None else residual
    if not len(x):
        return out
    routing = route_triton(scores, used, normalised, fixed)
    h = grouped_product(x, gate_up, routing, True, gelu, configs[0])
    parts = grouped_product(h, down, routing, False, False, configs[1])
    width = x.shape[1]
    block = min(1024, triton.next_power_of_2(width))
    _sum_kernel[(len(x), triton.cdiv(width, block))](
        parts, routing.weights, out, out, width, USED=used, BLOCK=block,
        RESIDUAL=residual is not None, num_warps=4, **overlap(x))
    return out
