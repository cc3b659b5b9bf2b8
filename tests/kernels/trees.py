"""Random ragged steps over a pool: rows whose contexts form a random tree of slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sglc.kernels.paged_attention import Rows


@dataclass(frozen=True, slots=True)
class Tree:
    """rows, the table of their slots (int32), how many slots there are, and the pool's size."""

    rows: Rows
    table: np.ndarray
    slots: int


def random_tree(seed: int, leaves: int = 6, longest: int = 12, depth: int = 3,
                most_new: int = 4) -> Tree:
    """1 to `leaves` rows below random branchings; new tokens may lie on a shared branch.

    Slots are shuffled, and more exist than are used.
    """
    rng = np.random.default_rng(seed)
    contexts: list[list[int]] = []
    fresh = iter(range(1 << 30))

    def grow(prefix: list[int], count: int, level: int) -> None:
        prefix = prefix + [next(fresh) for _ in range(int(rng.integers(0, longest)))]
        if count == 1 or level == depth:
            for _ in range(count):
                own = int(rng.integers(1, longest))
                contexts.append(prefix + [next(fresh) for _ in range(own)])
            return
        left = int(rng.integers(1, count))
        if rng.random() < 0.25 and prefix and (not contexts or contexts[-1] != prefix):
            contexts.append(list(prefix))  # a row that ends where others go on
            left, count = 1, max(2, count - 1)
        grow(prefix, left, level + 1)
        grow(prefix, count - left, level + 1)

    grow([], int(rng.integers(1, leaves + 1)), 0)
    unique = list({tuple(c): c for c in contexts if c}.values())
    rng.shuffle(unique)
    total = next(fresh) + 3
    names = rng.permutation(total).astype(np.int32)
    lengths = [len(c) for c in unique]
    # New tokens are a row's last ones that no other row computes.
    taken: set[int] = set()
    new = []
    for c in sorted(unique, key=len):
        own = 0
        for slot in reversed(c):
            if slot in taken or own == most_new:
                break
            taken.add(slot)
            own += 1
        new.append((tuple(c), own))
    by_context = dict(new)
    tokens = [int(rng.integers(1, by_context[tuple(c)] + 1)) for c in unique]
    ends = np.cumsum(tokens)
    offsets = np.cumsum([0, *lengths[:-1]]) + 2
    table = names[np.concatenate([[0, 0], *unique]).astype(np.int64)]
    return Tree(Rows.of((ends - tokens).tolist(), tokens, lengths, offsets.tolist()), table, total)
