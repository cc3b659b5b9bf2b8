"""The work list of one attention step: units of a few queries against a run of keys.

Every row and every shared run of keys becomes blocks of queries, each cut along its keys into
units; what several units say about one token is merged by log-sum-exp.  One list serves decode,
prefill, jumps, tries and shared prefixes.  Built with numpy on the host, once a step for all
layers; it knows shapes and costs, not tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sglc.kernels.attention_shape import MIDDLE, NARROW, UNIT, WIDE, Limits, Shape, Units
from sglc.kernels.paged_attention import Rows
from sglc.kernels.prefix_tree import Shared, find_shared, worthwhile

# Costs in keys read by one program: starting and ending a unit; a merge kernel that would
# otherwise have nothing to do.
_UNIT_COST = 64
_MERGE_COST = 96
_WORTH = 0.95  # a split must promise at least this
_PACKED_KEYS = 2600  # keys of a packed unit, at most about so many


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Blocks of queries, one entry of every array each; the entries behind them are flat.

    begin, end: positions of the keys.  free: all queries see the keys before this position.
    offset: where position 0 is in the table.  first, count: entries.
    """

    kind: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    free: np.ndarray
    offset: np.ndarray
    count: np.ndarray
    token: np.ndarray
    position: np.ndarray


def shared_runs(rows: Rows, table: np.ndarray, shape: Shape, window: int = 0) -> list[Shared]:
    """The prefixes to attend to once.  They change only when rows come, go or are forked.

    Rows of many tokens keep the tensor cores busy alone and share nothing here.  window: as in
    `plan_units`.
    """
    few = np.flatnonzero(rows.tokens * shape.group < shape.tiles[MIDDLE])
    return worthwhile(find_shared(rows, table, few), rows.tokens,
                      unseen=_unseen(rows, window))


def plan_units(rows: Rows, shared: Sequence[Shared], shape: Shape, limits: Limits | None = None,
               chunk: int | None = None, window: int = 0) -> Units:
    """The units of a step; no token is in two rows.  Tokens that are in none have no units.

    shared: runs to attend to once, parents before children, as `prefix_tree` gives them.
    limits: splits and then sharing are given up until the list fits; None if anything does.
    chunk: cut all keys at multiples of this position and use one class of units, so that a
        token's result depends on its own keys alone, not on the rest of the step.
    window: keys that are not among the last so many of any query of a block (0: all are) are left
        out; those that are of some queries only are for the kernels to mask.
    """
    if chunk is not None:
        blocks = _row_blocks(rows, np.zeros(len(rows.starts), np.int64), shape, MIDDLE, window)
        begin = blocks.begin // chunk * chunk  # blocks of keys are the same ones in any step
        return _units(replace(blocks, begin=begin), rows.total, shape, chunk, True)
    for runs in (shared, ()) if shared else ((),):
        blocks = _blocks(rows, runs, shape, window)
        for coarser in (1, 4, 1 << 24):
            units = _units(blocks, rows.total, shape, coarser, False)
            if limits is None or units.fits(limits):
                return units
    raise ValueError(f"{rows.total} tokens in {len(rows.starts)} rows do not fit {limits}")


def _blocks(rows: Rows, shared: Sequence[Shared], shape: Shape, window: int) -> _Blocks:
    own = np.zeros(len(rows.starts), np.int64)
    for run in shared:
        own[run.rows] = run.end
    alone = _row_blocks(rows, own, shape, None, window)
    if window:
        unseen = _unseen(rows, window)
        shared = [run for run in shared if unseen[run.rows].min() < run.end]
    if not shared:
        return alone
    runs = _run_blocks(rows, shared, shape, window)
    return _Blocks(*(np.concatenate((getattr(runs, name), getattr(alone, name)))
                     for name in _Blocks.__slots__))


def _unseen(rows: Rows, window: int) -> np.ndarray:
    """How many keys of every row none of its tokens sees."""
    if not window:
        return np.zeros(len(rows.starts), np.int64)
    return np.maximum(rows.lengths - rows.tokens - window + 1, 0)


def _row_blocks(rows: Rows, begins: np.ndarray, shape: Shape, kind: int | None, window: int
                ) -> _Blocks:
    """Every row's queries against its keys from `begins` on."""
    n = rows.tokens
    m = n * shape.group
    if kind is None:
        kinds = (m > shape.tiles[NARROW]).astype(np.int64) + (m > shape.tiles[MIDDLE])
    else:
        kinds = np.full(len(n), kind)
    holds = np.array([shape.queries(k) for k in (NARROW, MIDDLE, WIDE)])[kinds]
    blocks = -(-n // holds)
    row = np.repeat(np.arange(len(n)), blocks)
    first = _within(blocks) * holds[row]
    count = np.minimum(n[row] - first, holds[row])
    position = (rows.lengths - n)[row] + first  # of the first query
    begin, end = begins[row], position + count
    if window:
        begin = np.maximum(begin, position - window + 1)
    keep = end > begin  # else all its keys are in shared runs
    row, first, count, position = row[keep], first[keep], count[keep], position[keep]
    begin, end = begin[keep], end[keep]
    inside = _within(count)
    return _Blocks(kinds[row], begin, end, np.maximum(position + 1, begin), rows.offsets[row],
                   count, np.repeat(rows.starts[row] + first, count) + inside,
                   np.repeat(position, count) + inside)


def _run_blocks(rows: Rows, shared: Sequence[Shared], shape: Shape, window: int) -> _Blocks:
    """The queries of all rows of every shared run against its keys; some query sees each run."""
    begins, ends = (np.array([getattr(r, name) for r in shared]) for name in ("begin", "end"))
    members = np.concatenate([r.rows for r in shared])
    n = rows.tokens[members]
    inside = _within(n)
    token = np.repeat(rows.starts[members], n) + inside
    position = np.repeat(rows.lengths[members] - n, n) + inside
    run = np.repeat(np.repeat(np.arange(len(shared)), [len(r.rows) for r in shared]), n)
    seeing = position >= begins[run]
    if window:
        seeing &= position - window + 1 < ends[run]
    token, position, run = token[seeing], position[seeing], run[seeing]
    queries = np.bincount(run, minlength=len(shared))
    m = queries * shape.group
    kinds = np.where(m <= shape.tiles[NARROW], NARROW,
                     np.where(m >= shape.wide_from, WIDE, MIDDLE))
    holds = np.array([shape.queries(k) for k in (NARROW, MIDDLE, WIDE)])[kinds]
    size = -(-queries // -(-queries // holds))  # blocks of about the same size
    blocks = -(-queries // size)
    run = np.repeat(np.arange(len(shared)), blocks)
    first = _within(blocks) * size[run]
    starts = (queries.cumsum() - queries)[run] + first
    least = np.minimum.reduceat(position, starts)
    begin, end = begins[run], ends[run]
    if window:
        begin = np.maximum(begin, least - window + 1)
    free = np.clip(least + 1, begin, end)
    offsets = rows.offsets[np.array([r.rows[0] for r in shared])]
    return _Blocks(kinds[run], begin, end, free, offsets[run],
                   np.minimum(queries[run] - first, size[run]), token, position)


def _within(counts: np.ndarray) -> np.ndarray:
    """0 .. counts[0] - 1, 0 .. counts[1] - 1 and so on, as one array."""
    ends = counts.cumsum()
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _units(blocks: _Blocks, tokens: int, shape: Shape, chunk: int, fixed: bool) -> Units:
    """Cut blocks along their keys; number the partial results, a token's side by side.

    chunk: if fixed, cut at its multiples; else a factor on the best size of a piece.
    """
    length = blocks.end - blocks.begin
    if fixed:
        size = np.full(len(length), chunk)
        lead = blocks.begin % chunk
    else:
        size = np.empty(len(length), np.int64)
        for kind, programs in enumerate(shape.programs):
            mask = blocks.kind == kind
            if mask.any():
                best = _piece(length[mask], blocks.count[mask], programs, shape) * chunk
                pieces = -(-length[mask] // best)
                even = -(-length[mask] // pieces)
                size[mask] = -(-even // shape.step) * shape.step
        lead = np.zeros(len(length), np.int64)
    pieces = -(-(lead + length) // size)

    entry_pieces = np.repeat(pieces, blocks.count)
    of_token = np.bincount(blocks.token, entry_pieces, tokens).astype(np.int64)
    merged = np.where(of_token > 1, of_token, 0)
    pointers = np.append(0, merged.cumsum())
    order = np.argsort(blocks.token, kind="stable")
    before = entry_pieces[order].cumsum() - entry_pieces[order]
    in_order = blocks.token[order]
    before -= (of_token.cumsum() - of_token)[in_order]
    part = np.empty(len(order), np.int64)
    part[order] = np.where(merged[in_order] > 0, pointers[in_order] + before, -1)

    of = np.repeat(np.arange(len(length)), pieces)
    piece = _within(pieces)
    begin = np.maximum(blocks.begin[of] - lead[of] + piece * size[of], blocks.begin[of])
    end = np.minimum(blocks.begin[of] - lead[of] + (piece + 1) * size[of], blocks.end[of])
    keys = end - begin
    entry = blocks.count.cumsum() - blocks.count
    units = np.zeros((len(of), UNIT), np.int64)
    units[:, :7] = np.stack((entry[of], blocks.count[of], blocks.offset[of] + begin, keys, begin,
                             # The kernels' two loops round differently.
                             np.clip(blocks.free[of] - begin, 0, 0 if fixed else keys), piece),
                             1)
    units[:, 9::2] = 1 << 30  # no other row's keys
    longest = np.argsort(-keys, kind="stable")
    units, kinds = units[longest], blocks.kind[of][longest]
    narrow, middle, wide = (units[kinds == kind] for kind in (NARROW, MIDDLE, WIDE))
    entries = np.stack((blocks.token, part, blocks.position + 1))
    if not fixed:
        alone = pieces[of][longest][kinds == NARROW] == 1
        narrow, entries = _pack(narrow, alone & (narrow[:, 1] == 1), entries, shape)
    return Units(tuple(u.astype(np.int32) for u in (narrow, middle, wide)),
                 *entries.astype(np.int32), pointers.astype(np.int32))


def _pack(units: np.ndarray, may: np.ndarray, entries: np.ndarray, shape: Shape
          ) -> tuple[np.ndarray, np.ndarray]:
    """Narrow units of one row each put together so that they end soonest, and the entries.

    A unit takes a while to start, and a narrow one has empty rows.
    may: which units of one whole row there are; units are sorted by length, longest first.
    """
    may = may & (units[:, 3] <= _PACKED_KEYS // 2)
    rows = units[may]
    if not len(rows):
        return units, entries
    at_once = max(1, shape.programs[NARROW] // shape.kv_heads)
    mean = float(rows[:, 3].mean())

    def time(n: int) -> float:
        waves = -(-len(rows) // n) / at_once
        # The last wave has the bandwidth for itself, so it takes less than the others.
        return max(1.0, (waves + np.ceil(waves)) / 2) * (n * mean + _UNIT_COST)

    most = min(range(1, max(1, min(shape.packed, int(_PACKED_KEYS // mean))) + 1), key=time)
    if most < 2:
        return units, entries
    count = -(-len(rows) // most)
    # Long rows with short ones: every other column runs backwards.
    order = np.full((most, count), -1)
    order.reshape(-1)[:len(rows)] = np.arange(len(rows))
    order[1::2] = order[1::2, ::-1]
    order = np.sort(order, 0)[::-1]  # the missing ones of the last column go last
    there = order >= 0
    keys = np.where(there, rows[order, 3], 0)
    ends = keys.cumsum(0)
    packed = np.zeros((count, UNIT), np.int64)
    packed[:, 9::2] = 1 << 30
    new = np.where(there.T)
    source = rows[order.T[new], 0]
    queries = there.sum(0)
    packed[:, 0] = entries.shape[1] + queries.cumsum() - queries
    packed[:, 1], packed[:, 3] = queries, ends[-1]
    for i in range(most):
        before = ends[i] - keys[i]
        packed[:, 8 + 2 * i] = np.where(there[i], rows[order[i], 2] - before, 0)
        packed[:, 9 + 2 * i] = np.where(there[i], before, 1 << 30)
    added = entries[:, source].copy()
    added[2] = ends.T[new]
    units = np.concatenate((units[~may], packed))
    return units[np.argsort(-units[:, 3], kind="stable")], np.concatenate((entries, added), 1)


def _piece(length: np.ndarray, count: np.ndarray, programs: int, shape: Shape) -> int:
    """Keys a unit should have for the work to end soonest, a multiple of `shape.step`.

    Programs run in waves; a split costs a unit's start, and a partial result of each query
    written and read (2 group keys' worth of bytes in 16-bit types).
    """
    longest = -(-int(length.max()) // shape.step) * shape.step
    at_once = max(1, programs // shape.kv_heads)
    steps = np.unique(np.concatenate(([2, 3], np.round(4 * 2 ** np.arange(0, 10, 0.25)))))
    sizes = np.append(steps * shape.step, longest)
    sizes = sizes[sizes <= longest].astype(np.int64)
    pieces = -(-length[:, None] // sizes)
    units = pieces.sum(0)
    split = pieces > 1
    partial = (pieces * split * count[:, None]).sum(0) * 2 * shape.group
    work = int(length.sum()) + units * _UNIT_COST
    if length.max() * len(length) < 1.5 * length.sum():  # about equal: whole waves
        time = np.ceil(units / at_once) * work / units
    else:  # short units fill the gaps, all but those of the end
        time = work / at_once + sizes / 3
    time = np.maximum(time, sizes + _UNIT_COST)
    time = time + partial / at_once + split.any(0) * _MERGE_COST
    best = int(time.argmin())
    return int(sizes[best] if time[best] < _WORTH * time[-1] else longest)
