"""Steps that attention is measured on, on the head shape of Llama-3.1-8B, and random inputs.

Slots are in shuffled runs of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglc.kernels.paged_attention import Rows

HEADS, KV_HEADS, DIM = 32, 8, 128
BANDWIDTH = 4.3e12
BYTES = 2 * KV_HEADS * DIM * 2  # a token's keys and values
PAGE = 16


@dataclass(frozen=True, slots=True)
class Case:
    """Rows over slots; `flops` of the causal products; `same`: (rows, new, keys) if all equal."""

    name: str
    rows: Rows
    table: np.ndarray
    slots: int
    same: tuple[int, int, int] | None

    @property
    def floor(self) -> float:
        """Microseconds to read what is distinct."""
        return len(np.unique(self.table)) * BYTES / BANDWIDTH * 1e6

    @property
    def flops(self) -> float:
        """Of the two products, causal."""
        n, length = self.rows.tokens, self.rows.lengths
        return float(4 * HEADS * DIM * (n * (2 * length - n + 1) // 2).sum())


def case(name: str, sequences: Sequence[tuple[Sequence[int], int]], seed: int = 0) -> Case:
    """One row for (lengths of nested prefixes by group, new tokens), see `grouped`."""
    rng = np.random.default_rng(seed)
    runs: dict[tuple[int, ...], np.ndarray] = {}
    used = 0
    contexts = []
    total = 0
    for path, _ in sequences:
        for depth in range(0, len(path), 2):
            total += -(-path[depth + 1] // PAGE) if path[:depth + 2] not in runs else 0
            runs.setdefault(tuple(path[:depth + 2]), np.empty(0))
    pages = rng.permutation(total)
    runs.clear()
    for path, _ in sequences:
        parts = []
        for depth in range(0, len(path), 2):
            key, length = tuple(path[:depth + 2]), path[depth + 1]
            if key not in runs:
                count = -(-length // PAGE)
                runs[key] = (pages[used:used + count, None] * PAGE
                             + np.arange(PAGE)).reshape(-1)[:length]
                used += count
            parts.append(runs[key])
        contexts.append(np.concatenate(parts))
    tokens = [n for _, n in sequences]
    lengths = [len(c) for c in contexts]
    rows = Rows.of(np.cumsum([0, *tokens[:-1]]).tolist(), tokens, lengths,
                   np.cumsum([0, *lengths[:-1]]).tolist())
    same = ((len(tokens), tokens[0], lengths[0])
            if len(set(tokens)) == len(set(lengths)) == 1 else None)
    return Case(name, rows, np.concatenate(contexts).astype(np.int32), total * PAGE, same)


def plain(rows: int, new: int, keys: int) -> Case:
    """`rows` rows that share nothing."""
    return case(f"{rows} x {new} new of {keys}", [((i, keys), new) for i in range(rows)])


def grouped(groups: Sequence[tuple[int, int]], own: int, top: int = 0, new: int = 1,
            name: str = "") -> Case:
    """Groups of (rows, shared tokens), each row with `own` more; all below `top` tokens."""
    head = (0, top) if top else ()
    ids = iter(range(1 << 30))
    return case(name or f"{len(groups)} x {groups[0][0]} x ({groups[0][1]} + {own})",
                [((*head, g + 1, shared, next(ids), own), new)
                 for g, (rows, shared) in enumerate(groups) for _ in range(rows)])


def inputs(c: Case) -> tuple[list[Tensor], Tensor]:
    """Pools of enough layers to leave the L2 cache, and queries."""
    layers = int(max(2, min(32, 2**28 // (c.slots * BYTES) + 1)))
    pools = [torch.empty(c.slots, 2, KV_HEADS, DIM, device="cuda", dtype=torch.bfloat16).normal_()
             for _ in range(layers)]
    q = torch.randn(c.rows.total, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    return pools, q


PREFILL = [plain(8, 1024, 1024), plain(1, 8192, 8192), plain(16, 128, 2176), plain(4, 512, 4096),
           plain(1, 2048, 2048), plain(4, 4096, 4096), plain(1, 32768, 32768),
           case("mixed: 96 x 1 of 1500, 2 x 1024 new",
                [*(((i, 1500), 1) for i in range(96)), ((100, 1024), 1024), ((101, 3000), 1024)])]
LONG = [plain(4096 // n, n, n + before) for before in (0, 2048) for n in (64, 128, 256, 512, 1024)]
DECODE = [plain(b, 1, k) for b in (1, 16, 64, 256) for k in (128, 1024, 4096)] + [
    case("ragged 64: 16 .. 8192", [((i, int(16 * 1.104**i)), 1) for i in range(64)])]
SHARED = [*(grouped([(n, s)], own) for n, s, own in (
    (8, 1024, 128), (8, 4096, 128), (16, 4096, 128), (64, 1024, 128), (64, 4096, 128),
    (64, 4096, 1024), (64, 16384, 128), (256, 1024, 64), (256, 4096, 64))),
    grouped([(16, 2048)] * 32, 128), grouped([(512, 4096)], 32),
    grouped([(3, 700), (40, 2048), (7, 5000), (1, 900), (90, 300), (20, 1111)], 100,
            name="ragged groups, 161 rows"),
    grouped([(16, 512)] * 16, 64, top=2048, name="two levels: 2048 / 16 x 512 / 16 x 64"),
    grouped([(4, 160)] * 32, 64, new=8, name="jumps: 32 x 4 x (160 + 64), 8 new")]
