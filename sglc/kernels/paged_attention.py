"""Causal attention of ragged rows over a paged pool: what the rows are, and the torch reference.

A row is some consecutive new tokens of one sequence; the query at position p sees the keys at
positions 0 .. p, whose slots are listed in a table.  Who shares slots with whom is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglc.kernels.attention_shape import PLAIN, Scores


@dataclass(frozen=True, slots=True)
class Rows:
    """R rows of a step, one int64 entry a row in every array.

    starts: index of the row's first token among the step's tokens.
    tokens: how many new tokens the row has, at least 1.
    lengths: its keys, the new tokens' own included (position of the last new token + 1).
    offsets: where the row begins in the table of slots: the slot of its position p is
        `table[offsets + p]`.
    """

    starts: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, starts: Sequence[int], tokens: Sequence[int], lengths: Sequence[int],
           offsets: Sequence[int]) -> Rows:
        """From sequences of integers."""
        return cls(*(np.asarray(a, np.int64) for a in (starts, tokens, lengths, offsets)))

    @property
    def total(self) -> int:
        """Tokens of the step, if the rows hold all of them."""
        return int(self.tokens.sum())


def paged_attention_torch(q: Tensor, pool: Tensor, table: Tensor, rows: Rows,
                          how: Scores = PLAIN) -> Tensor:
    """softmax(q k^T / sqrt(D)) v in float32, of the shape of q; one row at a time.

    q: (T, heads, D).  pool: (slots, 2, kv_heads, D), keys then values, kv_heads dividing heads.
    table: integer slots.  how: a window, another scale, a cap.
    Tokens that no row holds give zeros.
    """
    out = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    group = q.shape[1] // pool.shape[2]
    for start, n, length, offset in zip(rows.starts.tolist(), rows.tokens.tolist(),
                                        rows.lengths.tolist(), rows.offsets.tolist(),
                                        strict=True):
        kv = pool[table[offset:offset + length].long()].float()
        k, v = (kv[:, i].repeat_interleave(group, 1).transpose(0, 1) for i in (0, 1))
        scores = q[start:start + n].float().transpose(0, 1) @ k.transpose(1, 2)
        scores *= how.scale or q.shape[2] ** -0.5
        if how.cap:
            scores = how.cap * (scores / how.cap).tanh()
        key = torch.arange(length, device=q.device)
        own = torch.arange(length - n, length, device=q.device)[:, None]
        unseen = key > own
        if how.window:
            unseen |= key <= own - how.window
        scores = scores.masked_fill(unseen, float("-inf"))
        out[start:start + n] = (scores.softmax(-1) @ v).transpose(0, 1)
    return out
