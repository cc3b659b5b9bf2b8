"""`rope_store` as one Triton kernel: a program for a few heads of a token."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.overlap import let_next_start, overlap, wait_for_inputs


@triton.jit
def _kernel(qkv_ptr, positions_ptr, slots_ptr, table_ptr, pool_ptr, q_norm_ptr, k_norm_ptr,
            bias_ptr, out_ptr, heads, groups, eps, HALF: tl.constexpr, BLOCK_D: tl.constexpr,
            BLOCK_H: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr, OVERLAP: tl.constexpr):
    let_next_start(OVERLAP)
    wait_for_inputs(OVERLAP)
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    at = tl.arange(0, BLOCK_D)
    dim = 2 * HALF
    total = heads + 2 * groups
    inside = (head < total)[:, None] & (at < HALF)[None, :]
    source = qkv_ptr + (token * total + head[:, None]) * dim + at[None, :]
    raw_a = tl.load(source, mask=inside, other=0.0)
    raw_b = tl.load(source + HALF, mask=inside, other=0.0)
    a, b = raw_a.to(tl.float32), raw_b.to(tl.float32)
    if BIAS:
        added = bias_ptr + head[:, None] * dim + at[None, :]
        a += tl.load(added, mask=inside, other=0.0)
        b += tl.load(added + HALF, mask=inside, other=0.0)
        raw_a, raw_b = a, b
    is_q = (head < heads)[:, None]
    is_v = (head >= heads + groups)[:, None]
    if NORM:
        squares = tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)
        scale = (1.0 / tl.sqrt(squares / dim + eps))[:, None]
        fits = at < HALF
        q_a = tl.load(q_norm_ptr + at, mask=fits, other=0.0).to(tl.float32)[None, :]
        q_b = tl.load(q_norm_ptr + HALF + at, mask=fits, other=0.0).to(tl.float32)[None, :]
        k_a = tl.load(k_norm_ptr + at, mask=fits, other=0.0).to(tl.float32)[None, :]
        k_b = tl.load(k_norm_ptr + HALF + at, mask=fits, other=0.0).to(tl.float32)[None, :]
        a = a * scale * tl.where(is_q, q_a, k_a)
        b = b * scale * tl.where(is_q, q_b, k_b)
    position = tl.load(positions_ptr + token).to(tl.int64)
    angles = table_ptr + position * dim + at
    cos = tl.load(angles, mask=at < HALF, other=0.0)[None, :]
    sin = tl.load(angles + HALF, mask=at < HALF, other=0.0)[None, :]
    turned_a, turned_b = a * cos - b * sin, b * cos + a * sin
    q_at = out_ptr + (token * heads + head[:, None]) * dim + at[None, :]
    kind = out_ptr.dtype.element_ty
    tl.store(q_at, turned_a.to(kind), mask=inside & is_q)
    tl.store(q_at + HALF, turned_b.to(kind), mask=inside & is_q)
    slot = tl.load(slots_ptr + token + head * 0).to(tl.int64)[:, None]
    kv_at = pool_ptr + (slot * 2 * groups + head[:, None] - heads) * dim + at[None, :]
    kept = inside & (head >= heads)[:, None] & (slot >= 0)
    kind = pool_ptr.dtype.element_ty
    tl.store(kv_at, tl.where(is_v, raw_a.to(kind), turned_a.to(kind)), mask=kept)
    tl.store(kv_at + HALF, tl.where(is_v, raw_b.to(kind), turned_b.to(kind)), mask=kept)


def rope_store_triton(qkv: Tensor, positions: Tensor, slots: Tensor, table: Tensor, pool: Tensor,
                      q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                      eps: float = 0.0, bias: Tensor | None = None) -> Tensor:
    """As `rope_store_torch`, of contiguous tensors."""
    # Few heads a program keep all processors busy when there are few tokens.
    few = len(qkv) <= 16
    return rope_store_by(2 if few else 8, qkv, positions, slots, table, pool, q_norm, k_norm, eps,
                         bias)


def rope_store_by(block_h: int, qkv: Tensor, positions: Tensor, slots: Tensor, table: Tensor,
                  pool: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, eps: float,
                  bias: Tensor | None) -> Tensor:
    """The same with so many heads a program."""
    groups, dim = pool.shape[2:]
    tokens = len(qkv)
    heads = qkv.shape[1] // dim - 2 * groups
    out = qkv.new_empty(tokens, heads, dim)
    if not tokens:
        return out
    norm = q_norm is not None and k_norm is not None
    _kernel[(tokens, triton.cdiv(heads + 2 * groups, block_h))](
        qkv, positions, slots, table, pool, q_norm if norm else table,
        k_norm if norm else table, table if bias is None else bias, out, heads, groups, eps,
        HALF=dim // 2, BLOCK_D=triton.next_power_of_2(dim // 2), BLOCK_H=block_h,
        NORM=norm, BIAS=bias is not None, num_warps=1 if block_h == 2 else 4, **overlap(qkv))
    return out
