"""Which rows of a step have so many queries that another attention kernel is worth its launch, and
the integers that describe them.  Who runs that kernel is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sglc.kernels.paged_attention import Rows


@dataclass(frozen=True, slots=True)
class Worth:
    """When rows are given away.

    tokens: of a row that is long.  tile: tokens of one row that the other kernel computes at
    once, a whole one even for a single query.  padding: products that it may compute, per
    product that is needed, in all rows together; the measured gain of long rows pays for it.
    """

    tokens: int
    tile: int
    padding: float


@dataclass(frozen=True, slots=True)
class Span:
    """Rows first .. last - 1 of a step, which are its tokens start .. stop - 1."""

    first: int
    last: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows as FlashInfer names them, int32.

    q_ends, k_ends: (R + 1,): row i has the queries q_ends[i] .. q_ends[i + 1] - 1, and of
    `slots`, the pool slots of all rows' keys, k_ends[i] .. k_ends[i + 1] - 1; its queries are the
    last ones of its keys.
    """

    q_ends: np.ndarray
    k_ends: np.ndarray
    slots: np.ndarray


def long_span(rows: Rows, worth: Worth) -> Span | None:
    """The rows from the first long one to the last; None if there is none, or it is not worth it.

    Short rows between long ones go with them: their tokens lie between theirs.
    """
    long = np.flatnonzero(rows.tokens >= worth.tokens)
    if not len(long):
        return None
    first, last = int(long[0]), int(long[-1]) + 1
    n, keys, starts = (a[first:last] for a in (rows.tokens, rows.lengths, rows.starts))
    if (starts[1:] != starts[:-1] + n[:-1]).any():
        return None
    seen = keys - (n - 1) / 2  # by a query, on average
    computed = -(-n // worth.tile) * worth.tile * seen
    if computed.sum() > worth.padding * (n * seen).sum():
        return None
    return Span(first, last, int(starts[0]), int(starts[-1] + n[-1]))


def split(rows: Rows, span: Span) -> tuple[Rows, Rows]:
    """The rows of the span, and the others."""
    inside = np.zeros(len(rows.starts), bool)
    inside[span.first:span.last] = True
    of = [getattr(rows, name) for name in Rows.__slots__]
    return Rows(*(a[inside] for a in of)), Rows(*(a[~inside] for a in of))


def ragged(rows: Rows, table: np.ndarray) -> Ragged:
    """Rows whose tokens follow each other, with the slots of their keys from the table."""
    ends = [np.append(0, a.cumsum()).astype(np.int32) for a in (rows.tokens, rows.lengths)]
    pieces = [table[o:o + n] for o, n in zip(rows.offsets.tolist(), rows.lengths.tolist(),
                                             strict=True)]
    return Ragged(*ends, np.concatenate(pieces).astype(np.int32, copy=False))
