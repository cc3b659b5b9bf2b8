"""How the rows of one step are attended: computed once a step, used by every layer.

Tokens are put in an order in which rows that share an attention call are neighbours; each such
group names its tokens, the pool slots of its keys, and its mask.  Rows of few tokens are grouped
by token count and similar length; a row of many tokens is a group of its own, cut into blocks so
that causality saves work.  Where a token sees only so many keys (a sliding window, Beltagy et al.
2020), a row's keys before the first one that any of its tokens sees are left out.  Nothing is
known of models, requests or kernels but their shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sglc.runtime.batch import Row

if TYPE_CHECKING:
    from torch import Tensor

SHORT = 16  # rows of up to this many tokens are grouped
BLOCK = 128  # queries an attention call in longer rows
# Keys that a group gathers: more leaves the processor's cache, which costs five times as much.
GROUP_KEYS = 2048
# From this many keys on, a row whose slots are one run is read in place, alone.
IN_PLACE = 1024

AttentionKernel = Callable[..., "Tensor"]


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens `start` to `stop` (in plan order), the same number of each row of its group.

    keys: how many of the group's keys a row sees at most; those before `first` it does not see.
    mask, causal: as `attention` has them, of the keys from `first` on.
    """

    start: int
    stop: int
    keys: int
    mask: Tensor | None
    causal: bool
    first: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Rows with `keys` keys each.  slots: their pool slots, a run or int64 (rows * keys,)."""

    rows: int
    keys: int
    slots: slice | Tensor
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """order[i] is the token that comes i-th; None if tokens keep their order."""

    order: np.ndarray | None
    groups: tuple[Group, ...]

    def attend(self, kernel: AttentionKernel, queries: Tensor, pool: Tensor,
               scratch: Tensor) -> Tensor:
        """Attention of one layer, (T, heads * head_dim), tokens in plan order.

        queries: (T, heads, head_dim).  pool: (slots, 2, kv_heads, head_dim).
        scratch: (at least `scratch_keys`, 2 * kv_heads * head_dim), overwritten.
        """
        _, heads, dim = queries.shape
        flat = pool.flatten(1)
        parts = []
        for group in self.groups:
            if isinstance(group.slots, slice):
                kv = pool[group.slots]
            else:
                kv = scratch[:len(group.slots)]
                torch.index_select(flat, 0, group.slots, out=kv)
            kv = kv.view(group.rows, group.keys, *pool.shape[1:])
            for b in group.blocks:
                q = queries[b.start:b.stop].view(group.rows, -1, heads, dim)
                out = kernel(q, kv[:, b.first:b.keys], b.mask, b.causal)
                parts.append(out.reshape(b.stop - b.start, heads * dim))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def scratch_keys(self) -> int:
        """Keys the largest gathering group needs room for."""
        return max((g.rows * g.keys for g in self.groups if not isinstance(g.slots, slice)),
                   default=0)


def plan_attention(rows: Sequence[Row], window: int = 0) -> AttentionPlan:
    """The plan for `rows`, whose tokens together are all tokens of the step.

    window: how many keys a token sees, its own included; 0 is all.  The order of tokens does not
    depend on it.
    """
    by_shape = sorted(rows, key=lambda r: (r.n, len(r.context)))
    if window:  # the order stays: by length still, since cutting keeps it
        by_shape = [_cut(row, window) for row in by_shape]
    groups: list[Group] = []
    order: list[np.ndarray] = []
    start = at = 0
    while at < len(by_shape):
        run = _run_of(by_shape[at]) if _wants_run(by_shape, at) else None
        members = by_shape[at:at + 1] if run else _similar(by_shape, at)
        tokens = sum(r.n for r in members)
        groups.append(_group(members, run, start, window))
        order.extend(np.arange(r.start, r.start + r.n) for r in members)
        start += tokens
        at += len(members)
    permutation = np.concatenate(order) if order else np.empty(0, np.int64)
    kept = bool((permutation == np.arange(start)).all())
    return AttentionPlan(None if kept else permutation, tuple(groups))


def _cut(row: Row, window: int) -> Row:
    """The row without the keys that none of its tokens sees."""
    unseen = len(row.context) - row.n - window + 1
    return Row(row.start, row.n, row.context[unseen:]) if unseen > 0 else row


def _wants_run(rows: Sequence[Row], at: int) -> bool:
    row = rows[at]
    return len(rows) == 1 or row.n > SHORT or len(row.context) >= IN_PLACE


def _run_of(row: Row) -> slice | None:
    """The row's slots as a slice if they ascend one by one."""
    first, n = int(row.context[0]), len(row.context)
    if int(row.context[-1]) - first == n - 1 and bool((np.diff(row.context) == 1).all()):
        return slice(first, first + n)
    return None


def _similar(rows: Sequence[Row], at: int) -> Sequence[Row]:
    """The rows from `at` on that one call serves: few tokens, as many, about as many keys."""
    first = rows[at]
    if first.n > SHORT:
        return rows[at:at + 1]
    end, least = at + 1, len(first.context)
    while end < len(rows) and rows[end].n == first.n:
        keys = len(rows[end].context)
        if keys > least + least // 4 + 16 or (end + 1 - at) * keys > GROUP_KEYS:
            break
        end += 1
    return rows[at:end]


def _group(rows: Sequence[Row], run: slice | None, start: int, window: int) -> Group:
    n, keys = rows[0].n, len(rows[-1].context)
    if len(rows) > 1:
        slots = np.empty((len(rows), keys), np.int64)
        for line, row in zip(slots, rows, strict=True):
            line[:len(row.context)] = row.context
            line[len(row.context):] = row.context[-1]  # masked, but finite
        lengths = np.array([len(r.context) for r in rows])
        mask = _mask(lengths, n, keys, window)
        block = Block(start, start + n * len(rows), keys, mask, False)
        return Group(len(rows), keys, torch.from_numpy(slots.reshape(-1)), (block,))
    where = torch.from_numpy(np.ascontiguousarray(rows[0].context)) if run is None else run
    blocks = _window_blocks(n, keys, start, window) if window and keys > window else \
        _blocks(n, keys, start)
    return Group(1, keys, where, blocks)


def _mask(lengths: np.ndarray, n: int, keys: int, window: int) -> Tensor | None:
    """0 where query i of row b may see key j, else -inf; (B, 1, n, L).

    It may see j if it is at most its own key's, lengths[b] - n + i, and in its window.
    """
    if n == 1 and int(lengths[0]) == keys:  # ascending, so all are equal
        return None
    last = (lengths - n)[:, None] + np.arange(n)
    return _seen(np.arange(keys), last[:, :, None], window)[:, None]


def _seen(keys: np.ndarray, last: np.ndarray, window: int) -> Tensor:
    """0 where a key is at most `last` and among the last `window` (if not 0), else -inf."""
    seen = keys <= last
    if window:
        seen &= keys > last - window
    return torch.from_numpy(np.where(seen, np.float32(0), np.float32("-inf")))


def _blocks(n: int, keys: int, start: int) -> tuple[Block, ...]:
    """The blocks of a row of `n` new tokens at the end of `keys`."""
    prefix, size = keys - n, min(n, BLOCK)
    blocks: list[Block] = []
    staircase: Tensor | None = None
    for a in range(0, n, size):
        b = min(a + size, n)
        seen = prefix + b
        if b - a == 1:
            mask, causal = None, False
        elif seen == b - a:
            mask, causal = None, True
        else:
            if staircase is None:  # query i sees the first `keys` columns and i more
                stairs = torch.full((size, size), float("-inf")).triu(1)
                staircase = torch.cat((torch.zeros(size, keys), stairs), 1)
            # Its columns from keys - (prefix + a) on are this block's mask.
            shift = keys - (prefix + a)
            mask, causal = staircase[:b - a, shift:shift + seen], False
        blocks.append(Block(start + a, start + b, seen, mask, causal))
    return tuple(blocks)


def _window_blocks(n: int, keys: int, start: int, window: int) -> tuple[Block, ...]:
    """As `_blocks`, where a token sees only the last `window` keys."""
    prefix, size = keys - n, min(n, BLOCK)
    blocks: list[Block] = []
    masks: dict[tuple[int, int, int], Tensor] = {}
    for a in range(0, n, size):
        b = min(a + size, n)
        first, seen = max(0, prefix + a - window + 1), prefix + b
        own = prefix + a - first  # the block's first token's own key
        shape = (b - a, seen - first, own)
        mask = None
        if b - a > 1:
            mask = masks.get(shape)
            if mask is None:
                mask = _seen(np.arange(shape[1]), own + np.arange(b - a)[:, None], window)
                masks[shape] = mask
        blocks.append(Block(start + a, start + b, seen, mask, False, first))
    return tuple(blocks)
