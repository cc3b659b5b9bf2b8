"""`follow_tokens` as a Triton kernel, a program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglc.kernels.fsm import DEAD, WIDTH, FsmTables

_DEAD = tl.constexpr(DEAD)
_WIDTH = tl.constexpr(WIDTH)


@triton.jit
def where_now(state_ptr, before_ptr, row):
    """Where a row is, of what a step takes (see `fsm`)."""
    now = tl.load(state_ptr + row)
    if now < 0:
        now = tl.load(before_ptr - 1 - now)
    return tl.where(now < 0, -1 - now, now)


@triton.jit
def _kernel(words_ptr, halves_ptr, base_ptr, state_ptr, before_ptr, token_ptr, out_ptr, rows):
    row = tl.program_id(0)
    token = tl.load(token_ptr + row)
    now = where_now(state_ptr, before_ptr, row)
    to = now
    if (now >> 62) == 0:
        to = -1 - now
        state = now & _DEAD
        if (token >= 0) & (state != _DEAD):
            table = now >> 32
            base = base_ptr + _WIDTH * table
            states = tl.load(base)
            info = tl.load(words_ptr + states + 2 * state)
            kinds = tl.load(base + 3 + (info & 1))
            kind = tl.load(halves_ptr + kinds + token).to(tl.int64) & 0xFFFF
            cell = tl.load(base + 1) + (info >> 2) + kind
            after = tl.load(halves_ptr + cell).to(tl.int64) & _DEAD
            some = after != _DEAD
            free = tl.load(words_ptr + states + 2 * tl.where(some, after, 0)) & 2
            to = (table << 32) | after
            to = tl.where(some & (free != 0), to, -1 - to)
    tl.store(out_ptr + row, token)
    tl.store(out_ptr + rows + row, to)


def follow_tokens_triton(tables: FsmTables, state: Tensor, before: Tensor,
                         token: Tensor) -> Tensor:
    """As `follow_tokens_torch`, of contiguous tensors."""
    rows = len(token)
    out = torch.empty(2, rows, dtype=torch.int64, device=token.device)
    if rows:
        _kernel[(rows,)](tables.words, tables.halves, tables.base, state, before, token, out, rows,
                         num_warps=1)
    return out
