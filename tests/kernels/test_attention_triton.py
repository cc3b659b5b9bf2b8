"""Attention by work list against the float32 reference: interpreted on the CPU, or on the GPU.

Without a GPU the shapes are tiny; with one, tests marked `gpu` use those of real models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.kernels.attention_shape import PLAIN, Grid, Limits, Scores, Shape, Units
from sglc.kernels.attention_units import plan_units, shared_runs
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.kernels.prefix_tree import find_shared
from tests.kernels.trees import random_tree

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY = Shape(4, 2, 16, (16, 16, 32), 16, (8, 8, 4), 24)
ERROR = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def attention(shape: Shape, limits: Limits, dtype: torch.dtype, cuda: bool = False) -> Any:
    from sglc.kernels.unit_attention import Launch, Tuning, UnitAttention, tuning

    tune = (Tuning((Launch(16, 4, 1),) * 3, False, dtype is not torch.float32)
            if shape.step == 16 else tuning(dtype, DEVICE, shape.dim))
    return UnitAttention(shape, limits, dtype, DEVICE, replace(tune, cuda=cuda))


def normal(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def ragged(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> tuple[Rows, np.ndarray, int]:
    """Rows of (new tokens, keys before them) with slots of their own, partly in runs."""
    tokens = [n for n, _ in sizes]
    lengths = [n + before for n, before in sizes]
    slots = rng.permutation(sum(lengths) + 5)[:sum(lengths)]
    slots[:lengths[0]].sort()
    ends = np.cumsum(tokens)
    rows = Rows.of((ends - tokens).tolist(), tokens, lengths,
                   np.cumsum([0, *lengths[:-1]]).tolist())
    return rows, slots.astype(np.int32), sum(lengths) + 5


def run(shape: Shape, rows: Rows, table: np.ndarray, slots: int, units: Units, limits: Limits,
        dtype: torch.dtype, seed: int, launch_all: bool = False, how: Scores = PLAIN,
        cuda: bool = False) -> torch.Tensor:
    """Run the kernels on fresh inputs, compare with the reference, and return the output.

    Slots that no row reads hold NaN, and so does the output beforehand.
    """
    q = normal(seed, rows.total, shape.heads, shape.dim).to(dtype).to(DEVICE)
    pool = torch.full((slots, 2, shape.kv_heads, shape.dim), float("nan"))
    used = torch.from_numpy(np.unique(np.concatenate(
        [table[o:o + n] for o, n in zip(rows.offsets, rows.lengths, strict=True)])))
    pool[used.long()] = normal(seed + 1, len(used), 2, shape.kv_heads, shape.dim)
    pool = pool.to(dtype).to(DEVICE)
    where = torch.from_numpy(table).to(DEVICE)
    attend = attention(shape, limits, dtype, cuda)
    attend._partial.fill_(float("nan"))
    attend._sums.fill_(float("nan"))
    attend.load(units)
    out: torch.Tensor = attend(q, pool, where, torch.full_like(q, float("nan")),
                               None if launch_all else units.grid, how)
    expected = paged_attention_torch(q, pool, where, rows, how)
    assert not out.isnan().any()
    worst = float((out.float() - expected).abs().max() / expected.abs().max())
    assert worst <= ERROR[dtype], worst
    return out


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_random_trees(seed: int, launch_all: bool) -> None:
    tree = random_tree(seed, leaves=5, longest=24, most_new=20)
    units = plan_units(tree.rows, find_shared(tree.rows, tree.table), TINY)
    need = units.grid  # a graph has room for more
    limits = Limits(Grid(need.narrow + 2, need.middle + 1, need.wide + 1, tree.rows.total + 3),
                    len(units.token) + 5, units.parts + 1)
    run(TINY, tree.rows, tree.table, tree.slots, units, limits, torch.float32, seed % 1000,
        launch_all)


def exactly(units: Units) -> Limits:
    """Room for this list."""
    narrow, middle, wide = map(len, units.by_class)
    return Limits(Grid(narrow, middle, wide, len(units.pointers) - 1), len(units.token),
                  units.parts)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.booleans())
def test_windows_in_random_trees(seed: int, window: int, cut: bool) -> None:
    """Of layers that all have the window, whose units end with it, and of some layers alone."""
    tree = random_tree(seed, leaves=4, longest=14, most_new=8)
    units = plan_units(tree.rows, find_shared(tree.rows, tree.table), TINY,
                       window=window if cut else 0)
    run(TINY, tree.rows, tree.table, tree.slots, units, exactly(units), torch.float32,
        seed % 1000, how=Scores(window))


@pytest.mark.parametrize("window", [0, 33])
def test_scales_caps_and_splits(window: int) -> None:
    shape = Shape(4, 2, 16, (16, 16, 32), 16, (64, 64, 64))
    rows, table, slots = ragged(np.random.default_rng(0), [(1, 90), (9, 60), (2, 5)])
    how = Scores(window, 1.5, 0.6)
    for chunk in (None, 64):
        units = plan_units(rows, (), shape, chunk=chunk, window=window)
        run(shape, rows, table, slots, units, exactly(units), torch.float32, 0, how=how)


def test_keys_outside_of_windows_are_not_read() -> None:
    shape, window = Shape(32, 8, 128), 100
    tokens, lengths = [1] * 20 + [300], [2000] * 20 + [1300]
    table = np.concatenate([[*range(1500), *range(r * 10**4, r * 10**4 + n - 1500)] if n > 1500
                            else range(10**6, 10**6 + n) for r, n in enumerate(lengths, 1)])
    ends, offsets = np.cumsum(tokens), np.cumsum([0, *lengths[:-1]])
    rows = Rows.of((ends - tokens).tolist(), tokens, lengths, offsets.tolist())
    (run,) = shared_runs(rows, table, shape)
    assert shared_runs(rows, table, shape, window) == []  # nobody sees it any more
    for runs in ([], [run]):
        units = plan_units(rows, runs, shape, window=window)
        most = 20 * window + sum(min(32, 300 - at) + window - 1 for at in range(0, 300, 32))
        assert sum(int(u[:, 3].sum()) for u in units.by_class) <= most
    near = Rows(rows.starts, rows.tokens, np.array([1550 if n == 2000 else n for n in lengths]),
                rows.offsets)
    assert [r.end for r in shared_runs(near, table, shape, 1000)] == [1500]
    units = plan_units(near, [run], shape, window=1000)
    begins = [int(u[4]) for found in units.by_class for u in found if u[1] > 1]
    assert 550 in begins  # the shared run's part that is seen


# Triton's interpreter has no product of bfloat16.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16,
                                   *([torch.bfloat16] if DEVICE == "cuda" else [])], ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 1, 24), (3, 3, 16), (6, 2, 16)])
def test_shapes_and_types(heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> None:
    shape = Shape(heads, kv_heads, dim, (16, 16, 32), 16, (2, 2, 2))
    rows, table, slots = ragged(np.random.default_rng(dim), [(1, 20), (1, 0), (2, 33), (11, 4)])
    units = plan_units(rows, (), shape)
    run(shape, rows, table, slots, units, Limits.for_tokens(15, shape), dtype, 0)


def test_splits_are_merged() -> None:
    shape = Shape(4, 2, 16, (16, 16, 32), 16, (64, 64, 64))
    rows, table, slots = ragged(np.random.default_rng(0), [(1, 700), (20, 300)])
    units = plan_units(rows, (), shape)
    assert units.parts > 22 and units.grid.narrow > 2 and units.grid.wide > 2
    run(shape, rows, table, slots, units, Limits.for_tokens(64, shape), torch.float32, 0)


def test_short_rows_are_packed() -> None:
    """Up to four rows a unit, and rows that are split or have several tokens beside them."""
    shape = Shape(4, 2, 16, (16, 16, 32), 16, (8, 8, 8))
    rng = np.random.default_rng(1)
    sizes = [(1, int(n)) for n in rng.integers(0, 90, 15)] + [(2, 30), (1, 900)]
    rows, table, slots = ragged(rng, sizes)
    units = plan_units(rows, (), shape)
    held = units.by_class[0][:, 1]
    assert held.max() == 4 and len(held) < 12 and units.parts > 0
    run(shape, rows, table, slots, units, Limits.for_tokens(20, shape), torch.float32, 0)


@pytest.mark.parametrize(("rows", "keys", "units"), [
    (256, 400, 64),  # all at once instead of in four waves
    (256, 1400, 256),  # long ones hide their starts
    (60, 400, 60),  # all at once as they are
    (300, 400, 300),  # two waves of four rows would take longer than five of one
])
def test_when_rows_are_packed(rows: int, keys: int, units: int) -> None:
    """On 132 multiprocessors, 8 heads of keys, four programs each."""
    shape = Shape(32, 8, 128, programs=(4 * 132, 2 * 132, 2 * 132))
    starts = list(range(rows))
    step = Rows.of(starts, [1] * rows, [keys] * rows, [keys * i for i in starts])
    planned = plan_units(step, (), shape)
    assert not planned.parts
    assert [len(u) for u in planned.by_class] == [units, 0, 0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from((0, 1, 17, 60)))
def test_a_plan_covers_every_pair_once(seed: int, window: int) -> None:
    """What the kernels would compute: each query sees each of its keys in exactly one unit."""
    tree = random_tree(seed, leaves=8, longest=90, most_new=40)
    rows, table = tree.rows, tree.table
    for units in (plan_units(rows, find_shared(rows, table), TINY, window=window),
                  plan_units(rows, (), TINY, window=window),
                  plan_units(rows, (), TINY, chunk=32, window=window)):
        seen: dict[int, list[int]] = {t: [] for t in range(rows.total)}
        written: dict[int, list[int]] = {t: [] for t in range(rows.total)}
        for u, holds in [(u, holds) for found, holds in zip(units.by_class, TINY.tiles,
                                                            strict=True) for u in found.tolist()]:
            first, count, key, keys, begin, free, piece = u[:7]
            assert 0 < count <= holds // TINY.group and keys > 0 and free <= keys
            ends = [*(e for e in u[11::2] if e < keys), keys]  # of the keys of packed rows
            shifts = u[8:8 + 2 * len(ends):2]
            places = [j + shifts[sum(j >= e for e in ends)] for j in range(keys)]
            for i, e in enumerate(range(first, first + count)):
                high = int(units.high[e]) - begin
                low = ends[i - 1] if i and len(ends) > 1 else 0
                if window:
                    low = max(low, high - window)
                assert free <= max(high, 0)
                token = int(units.token[e])
                seen[token] += [int(table[key + p]) for p in places[max(low, 0):max(high, 0)]]
                at = int(units.part[e])
                written[token].append(at + piece if at >= 0 else -1)
        for r in range(len(rows.starts)):
            start, n = int(rows.starts[r]), int(rows.tokens[r])
            offset, length = int(rows.offsets[r]), int(rows.lengths[r])
            for i in range(n):
                token = start + i
                own = length - n + i
                first = max(0, own - window + 1) if window else 0
                assert sorted(seen[token]) == sorted(
                    table[offset + first:offset + own + 1].tolist())
                parts = range(int(units.pointers[token]), int(units.pointers[token + 1]))
                assert sorted(written[token]) == (list(parts) or [-1])


def test_only_rows_of_few_tokens_share() -> None:
    prefix, rows = 300, 17
    tokens = [1] * (rows - 1) + [30]
    lengths = [prefix + n for n in tokens]
    contexts = [[*range(prefix), *range(1000 * (r + 1), 1000 * (r + 1) + n)]
                for r, n in enumerate(tokens)]
    table = np.concatenate(contexts).astype(np.int32)
    ends, offsets = np.cumsum(tokens), np.cumsum([0, *lengths[:-1]])
    step = Rows.of((ends - tokens).tolist(), tokens, lengths, offsets.tolist())
    shape = Shape(32, 8, 128)
    (run,) = shared_runs(step, table, shape)
    assert (run.begin, run.end) == (0, prefix) and set(run.rows.tolist()) == set(range(rows - 1))
    reads = [u[:, 3].sum() for u in plan_units(step, [run], shape).by_class]
    assert sum(reads) == prefix + (rows - 1) + lengths[-1]
    assert shared_runs(Rows(step.starts[:5], step.tokens[:5], step.lengths[:5],
                            step.offsets[:5]), table, shape) == []  # saves too little


def test_limits() -> None:
    tree = random_tree(11, leaves=8, longest=60)
    rows, table = tree.rows, tree.table
    n = rows.total
    least = Limits(Grid(n, n, n, n), n, 1)
    units = plan_units(rows, find_shared(rows, table), TINY, least)
    assert units.fits(least) and units.parts == 0
    with pytest.raises(ValueError, match="do not fit"):
        plan_units(rows, (), TINY, Limits(Grid(0, 0, 0, n), 0, 0))
    wide = Limits.for_tokens(512, TINY)
    assert plan_units(rows, (), TINY, wide).fits(wide)


def test_fixed_chunks_do_not_depend_on_the_batch() -> None:
    """Prefill at once, in pieces, and beside other rows: the same bits."""
    rng = np.random.default_rng(3)
    n = 50
    slots = rng.permutation(200).astype(np.int32)
    table = torch.from_numpy(slots).to(DEVICE)
    q = normal(0, n, 4, 16).to(DEVICE)
    pool = normal(1, 200, 2, 2, 16).to(DEVICE)

    def attend(rows: Rows, queries: torch.Tensor) -> torch.Tensor:
        units = plan_units(rows, (), TINY, chunk=32)
        kernel = attention(TINY, Limits(Grid(0, 200, 0, len(queries)), 400, 400), torch.float32)
        kernel.load(units)
        out: torch.Tensor = kernel(queries, pool, table, torch.empty_like(queries), units.grid)
        return out

    whole = attend(Rows.of([0], [n], [n], [0]), q)
    other = normal(2, 3, 4, 16).to(DEVICE)
    for a, b in ((0, 7), (7, 8), (8, 41), (41, 50)):
        rows = Rows.of([0, 3], [3, b - a], [90, b], [60, 0])
        got = attend(rows, torch.cat((other, q[a:b])))[3:]
        if DEVICE == "cuda":
            assert torch.equal(got, whole[a:b])
        else:  # numpy's product of a row depends on which row of the matrix it is
            torch.testing.assert_close(got, whole[a:b], rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "dtype"), [
    (32, 8, 128, torch.bfloat16), (9, 3, 64, torch.bfloat16), (32, 32, 80, torch.bfloat16),
    (16, 4, 96, torch.bfloat16), (28, 4, 128, torch.bfloat16), (32, 8, 128, torch.float16),
    (9, 3, 64, torch.float32), (16, 4, 128, torch.float32)])
def test_real_sizes(heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> None:
    from sglc.kernels.unit_attention import default_shape

    shape = default_shape(heads, kv_heads, dim, dtype)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        sizes = [(int(rng.choice([1, 1, 1, 5, 17, 200])), int(rng.integers(0, 3000)))
                 for _ in range(24)]
        rows, table, slots = ragged(rng, sizes)
        limits = Limits.for_tokens(rows.total, shape)
        units = plan_units(rows, (), shape, limits)
        run(shape, rows, table, slots, units, limits, dtype, seed)
        tree = random_tree(seed, leaves=60, longest=400, depth=5, most_new=30)
        limits = Limits.for_tokens(tree.rows.total, shape)
        runs = find_shared(tree.rows, tree.table)
        units = plan_units(tree.rows, runs, shape, limits)
        run(shape, tree.rows, tree.table, tree.slots, units, limits, dtype, seed, True)


@pytest.mark.gpu
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "dtype", "how"), [
    (32, 8, 128, torch.bfloat16, Scores(512)), (16, 8, 256, torch.bfloat16, Scores(300, 50.0)),
    (8, 1, 256, torch.bfloat16, Scores()), (16, 8, 256, torch.float32, Scores(0, 5.0, 0.07)),
    (32, 16, 128, torch.bfloat16, Scores(1000, 2.0, 0.2))], ids=str)
def test_real_windows_and_caps(heads: int, kv_heads: int, dim: int, dtype: torch.dtype,
                               how: Scores) -> None:
    from sglc.kernels.unit_attention import default_shape

    shape = default_shape(heads, kv_heads, dim, dtype)
    rng = np.random.default_rng(0)
    sizes = [(int(rng.choice([1, 1, 1, 5, 17, 200])), int(rng.integers(0, 3000)))
             for _ in range(24)]
    rows, table, slots = ragged(rng, sizes)
    limits = Limits.for_tokens(rows.total, shape)
    tree = random_tree(1, leaves=60, longest=400, depth=5, most_new=30)
    wide = Limits.for_tokens(tree.rows.total, shape)
    for window in {0, how.window}:  # of a layer among others without, and of all
        units = plan_units(rows, (), shape, limits, window=window)
        run(shape, rows, table, slots, units, limits, dtype, 0, how=how)
        units = plan_units(tree.rows, find_shared(tree.rows, tree.table), shape, wide,
                           window=window)
        run(shape, tree.rows, tree.table, tree.slots, units, wide, dtype, 1, True, how)


@pytest.mark.gpu
def test_one_graph_for_every_work_list() -> None:
    from sglc.kernels.unit_attention import default_shape

    shape = default_shape(32, 8, 128, torch.bfloat16)
    limits = Limits.for_tokens(256, shape)
    attend = attention(shape, limits, torch.bfloat16)
    q = torch.empty(256, 32, 128, dtype=torch.bfloat16, device="cuda")
    out = torch.empty_like(q)
    pool = torch.randn(9000, 2, 8, 128, device="cuda").bfloat16()
    table = torch.zeros(100_000, dtype=torch.int32, device="cuda")
    attend(q, pool, table, out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attend(q, pool, table, out)
    compared = 0
    for seed in range(8):
        tree = random_tree(seed, leaves=50, longest=300, depth=4, most_new=8)
        total = tree.rows.total
        if total > 256:
            continue
        q.normal_()
        out.fill_(float("nan"))
        table[:len(tree.table)] = torch.from_numpy(tree.table % 9000)
        runs = shared_runs(tree.rows, tree.table, shape)
        attend.load(plan_units(tree.rows, runs, shape, limits))
        graph.replay()
        compared += 1
        expected = paged_attention_torch(q, pool, table, tree.rows)[:total]
        worst = (out[:total].float() - expected).abs().max() / expected.abs().max()
        assert float(worst) <= ERROR[torch.bfloat16]
    assert compared > 3
