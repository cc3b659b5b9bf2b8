"""Which rows of a step share a prefix of slots, as a tree, and which of it is worth sharing.

Two rows that name the same slot at a position hold the same tokens up to there, since a slot
belongs to one place of one sequence.  Equality of two prefixes is therefore equality of their
last slots, and a common length is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sglc.kernels.paged_attention import Rows

# Key reads that sharing must save (measured on one H200 with 32 query heads on 8): a query's
# partial results are written and merged, and a step with shared runs launches two more kernels.
PER_QUERY = 120
IN_ALL = 2500

_CHECKPOINTS = 32  # positions by which rows are first sorted
_ROUNDS = 3  # of sorting by the positions at which neighbours part; 2 suffice for most trees


@dataclass(frozen=True, slots=True)
class Shared:
    """Positions begin .. end - 1 are in the same slots for all of `rows` (indices, int64)."""

    begin: int
    end: int
    rows: np.ndarray


def find_shared(rows: Rows, table: np.ndarray, among: np.ndarray | None = None,
                least: int = 1) -> list[Shared]:
    """The tree of common prefixes as runs: a run begins where its parent ends.

    Only runs of two rows and more and of `least` tokens and more are given; the tokens of a
    shorter run belong to the runs below it.  among: the rows to look at (indices); all if None.
    """
    rows_in = np.arange(len(rows.starts)) if among is None else np.asarray(among, np.int64)
    if len(rows_in) < 2:
        return []
    order, common = _sorted(rows, table, rows_in)
    found: list[Shared] = []
    # A stack of (common length, first row) of the subtrees that the next row may still join.
    nodes: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int]] = [(0, 0)]
    for i, length in enumerate([*common.tolist(), 0]):
        first = i
        while stack[-1][0] > length:
            depth, first = stack.pop()
            nodes.append((depth, first, i + 1))
        if stack[-1][0] < length:
            stack.append((length, first))
    # Parents come after their children: from the last node on, each knows where it begins.
    begins = np.zeros(len(order), np.int64)
    for end, lo, hi in reversed(nodes):
        begin = int(begins[lo])
        if end - begin >= least:
            found.append(Shared(begin, end, order[lo:hi]))
            begins[lo:hi] = end
    return found


def _sorted(rows: Rows, table: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`among` in an order in which sharers are neighbours, and neighbours' common lengths."""
    shortest = int(rows.lengths[among].min())
    points = np.unique(np.linspace(0, shortest - 1, _CHECKPOINTS).astype(np.int64))
    order, common = among, np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        last = rows.lengths[order] - 1
        at = np.minimum(points[:, None], last)
        keys = table[rows.offsets[order] + at]
        # A row that ends before a point comes first there.
        keys = np.where(points[:, None] > last, -1, keys)
        order = order[np.lexsort(keys[::-1])]
        common = _common(rows, table, order)
        parting = np.unique(common)
        if np.isin(parting, points).all():
            break
        points = np.union1d(points, parting)[:4 * _CHECKPOINTS]
    return order, common


def _common(rows: Rows, table: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Positions that each row of `order` shares with the next one."""
    a, b = rows.offsets[order[:-1]], rows.offsets[order[1:]]
    low = np.zeros(len(a), np.int64)
    high = np.minimum(rows.lengths[order[:-1]], rows.lengths[order[1:]])
    while (low < high).any():
        looking = low < high
        middle = np.where(looking, (low + high) >> 1, 0)  # is this position shared too?
        same = (table[a + middle] == table[b + middle]) & looking
        low = np.where(same, middle + 1, low)
        high = np.where(looking & ~same, middle, high)
    return low


def worthwhile(shared: Sequence[Shared], tokens: np.ndarray, per_query: int = PER_QUERY,
               in_all: int = IN_ALL, unseen: np.ndarray | None = None) -> list[Shared]:
    """The runs that save enough key reads; the others' tokens go to the runs below.

    shared: parents before children, as `find_shared` gives them.  tokens: new tokens of every
    row of the step.  Attending once to L tokens for n rows saves (n - 1) L reads; a run must save
    `per_query` for each of its queries, and all together `in_all`, or nothing is shared.
    unseen: how many keys of every row are not read anyway.
    """
    kept: list[Shared] = []
    begins = np.zeros(len(tokens), np.int64)
    saved = 0
    for run in shared:
        begin = int(begins[run.rows[0]])
        first = begin if unseen is None else max(begin, int(unseen[run.rows].min()))
        saves = (run.end - first) * (len(run.rows) - 1)
        if saves >= per_query * int(tokens[run.rows].sum()):
            kept.append(Shared(begin, run.end, run.rows))
            begins[run.rows] = run.end
            saved += saves
    return kept if saved >= in_all else []
