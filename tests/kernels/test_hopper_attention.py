"""Attention in CUDA C++ against float32: on a GPU of that kind, or run on the CPU.

Wide units are its own; those beside them are Triton's.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglc.kernels.attention_shape import Grid, Limits, Shape
from sglc.kernels.attention_units import plan_units
from sglc.kernels.hopper_attention_cuda import (
    HopperAttentionForm,
    hopper_attention,
    hopper_attention_source,
    takes_attention,
)
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.kernels.prefix_tree import find_shared
from tests.kernels.on_cpu.kernel import KernelFailed, attention_on_cpu, needs_compiler, some
from tests.kernels.test_attention_triton import ERROR, normal, ragged, run
from tests.kernels.trees import random_tree

pytest.importorskip("triton")

HALVES = [torch.bfloat16, torch.float16]
# Units of more than 16 rows of queries are wide; pieces are short.
SMALL = Shape(4, 2, 64, (16, 16, 128), 16, (8, 8, 4), 24)


def room(rows: Rows, shape: Shape) -> Limits:
    return Limits.for_tokens(rows.total, shape)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("tested on the GPU itself")
    attention_on_cpu(monkeypatch)


@needs_compiler
@pytest.mark.usefixtures("on_cpu")
@settings(max_examples=4, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_random_trees(seed: int, launch_all: bool) -> None:
    """Rows and shared runs, beside Triton's units, split and merged; units that do nothing."""
    tree = random_tree(seed, leaves=5, longest=90, most_new=40)
    units = plan_units(tree.rows, find_shared(tree.rows, tree.table), SMALL)
    need = units.grid
    limits = Limits(Grid(need.narrow + 1, need.middle, need.wide + 3, tree.rows.total + 3),
                    len(units.token) + 5, units.parts + 1)
    run(SMALL, tree.rows, tree.table, tree.slots, units, limits, torch.float16, seed % 1000,
        launch_all, cuda=True)


def attend(form: HopperAttentionForm, sizes: list[tuple[int, int]], seed: int = 0,
           programs: int = 40) -> float:
    """The largest error of wide units alone, of rows of (new tokens, keys before them)."""
    heads = form.kv_heads * form.group
    shape = Shape(heads, form.kv_heads, form.dim, (form.group, form.group, 128), 64,
                  (programs,) * 3, 1)
    rows, table, slots = ragged(np.random.default_rng(seed), sizes)
    units = plan_units(rows, (), shape)
    assert units.grid.narrow == units.grid.middle == 0
    pool = torch.full((slots, 2, form.kv_heads, form.dim), float("nan"))
    used = torch.from_numpy(np.unique(table)).long()
    pool[used] = normal(seed, len(used), 2, form.kv_heads, form.dim)
    pool, where = pool.to(form.kind), torch.from_numpy(table)
    q = normal(seed + 1, rows.total, heads, form.dim).to(form.kind)
    out = torch.full_like(q, float("nan"))
    partial = torch.full((units.parts + 1, heads, form.dim), float("nan"), dtype=form.kind)
    sums = torch.full((units.parts + 1, heads), float("nan"))
    # Graphs have room for more units; those do nothing.
    listed = np.concatenate((units.by_class[2], np.zeros((2, 16), np.int32)))
    entries = tuple(map(torch.from_numpy, (units.token, units.part, units.high)))
    hopper_attention(form, q, pool, where, out, partial, sums, torch.from_numpy(listed), entries,
                     len(listed), form.dim ** -0.5)
    assert bool(partial[-1].isnan().all()) and bool(sums[-1].isnan().all())
    ends = units.pointers.tolist()
    for token, (start, stop) in enumerate(pairwise(ends)):
        if stop > start:
            assert bool(out[token].isnan().all())
            weights = (sums[start:stop] * np.log(2)).softmax(0)[..., None]
            out[token] = (partial[start:stop].float() * weights).sum(0)
    exact = paged_attention_torch(q, pool, where, rows)
    return float(torch.nan_to_num(out.float() - exact, float("inf")).abs().max()
                 / exact.abs().max())


@needs_compiler
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("form", some([
    HopperAttentionForm(torch.bfloat16, 128, 2, 2), HopperAttentionForm(torch.float16, 64, 1, 3),
    HopperAttentionForm(torch.float16, 128, 1, 4, 64, False),
    HopperAttentionForm(torch.bfloat16, 64, 2, 1, 64, announced=False),
    HopperAttentionForm(torch.float16, 128, 1, 1, 128, False, False)], 2), ids=str)
def test_every_form(form: HopperAttentionForm) -> None:
    """Rows of one block and of many, whole ones and split ones; blocks that end anywhere."""
    for programs in (4, 40):
        error = attend(form, [(70, 300), (5, 0), (2, 62), (140, 77), (64, 64)], programs=programs)
        assert error <= ERROR[form.kind], error


WAYS = {
    "keys not waited for": ("wait(full + 8 * ring.at, ring.phase);", ""),
    "values not waited for": ("wait(full + 8 * at.at, at.phase);", ""),
    "scores read too early": ("products_wait<1>();", "products_wait<2>();"),
    "queries changed too early": (
        "products_wait<1>();", "query[0][0]++; products_wait<1>(); query[0][0]--;"),
    "no fence of keys": (
        "wait(full + 8 * ring.at, ring.phase);\n      if (ANNOUNCED) copies_are_seen();",
        "wait(full + 8 * ring.at, ring.phase);"),
    "no fence of values": (
        "wait(full + 8 * at.at, at.phase);\n      if (ANNOUNCED) copies_are_seen();",
        "wait(full + 8 * at.at, at.phase);"),
    "announced at once": (
        "copies_announce(full + 8 * ring.at);", "arrive_here(full + 8 * ring.at);"),
    "no room waited for": ("wait(empty + 8 * ring.at, ring.phase ^ 1);", ""),
    "a block never given back": ("      release(ring);\n", ""),
    "a block given back twice": ("      release(ring);\n", "      release(ring); release(ring);\n"),
    "values of the wrong keys": ("k * 2048) / 16", "k * 1024) / 16"),
    "another order of columns": ("((column ^ row) % 8) * 16", "(column % 8) * 16"),
    "sums not faded": ("total[lower] = total[lower] * fade[lower] + sum;", "total[lower] += sum;"),
    "no turns": ("if (IN_TURN) meet_some(2 + mine, 256);", ""),
}
# Where who copies waits for it.
WAITING = {
    "no fence": ("      copies_are_seen();\n      arrive_here", "      arrive_here"),
    "copies not waited for": ("copies_wait<LAG>();", ""),
    "the last blocks not given": ("left > 0; left--) give();", "left > 1; left--) give();"),
}


@needs_compiler
@pytest.mark.parametrize("way", some([*WAYS, *WAITING], 4), ids=str)
def test_what_is_wrong_is_found(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, which runs what threads, copies and products do in a random order."""
    attention_on_cpu(monkeypatch, [{**WAYS, **WAITING}[way]])
    form = HopperAttentionForm(torch.float16, 128, 1, 2, announced=way in WAYS)
    try:
        error = attend(form, [(70, 600), (140, 300)], programs=4)
    except KernelFailed:
        return
    assert error > 10 * ERROR[form.kind]


def test_where_it_is_not_for() -> None:
    form = HopperAttentionForm(torch.bfloat16, 128, 8, 4)
    cpu = torch.device("cpu")
    for other in (form._replace(dim=96), form._replace(kind=torch.float32)):
        assert form.exists and not other.exists
        assert "compute capability" in takes_attention(other, cpu)


def test_the_source_of_every_form() -> None:
    """Blocks for threads that are ahead, and as many sums as its products have."""
    for kind in HALVES:
        for dim in (64, 128):
            for keys in (64, 128):
                form = HopperAttentionForm(kind, dim, 8, 4, keys)
                assert 5 <= form.stages <= 8 and form.stages * form.block <= 226 * 1024
                source = hopper_attention_source(form).cuda()
                assert source.count('"+f"(d[') == (keys + dim) // 2
                assert f"m64n{keys}k16" in source and f"m64n{dim}k16" in source


@pytest.fixture
def hopper() -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no GPU of compute capability 9.0")


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("keys", [64, 128])
@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "dtype"), [
    (32, 8, 128, torch.bfloat16), (9, 3, 64, torch.bfloat16), (28, 4, 128, torch.float16),
    (16, 1, 128, torch.bfloat16), (8, 8, 64, torch.float16)])
def test_real_sizes(heads: int, kv_heads: int, dim: int, dtype: torch.dtype, keys: int,
                    in_turn: bool, announced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglc.kernels import unit_attention

    shape = unit_attention.default_shape(heads, kv_heads, dim, dtype, cuda=True)
    form = HopperAttentionForm(dtype, dim, kv_heads, heads // kv_heads, keys, in_turn, announced)
    assert not takes_attention(form, torch.device("cuda"))
    monkeypatch.setattr(unit_attention, "HopperAttentionForm", lambda *_: form)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sizes = [(int(rng.choice([1, 5, 17, 200, 700])), int(rng.integers(0, 3000)))
                 for _ in range(24)]
        rows, table, slots = ragged(rng, sizes)
        units = plan_units(rows, (), shape, room(rows, shape))
        run(shape, rows, table, slots, units, room(rows, shape), dtype, seed, cuda=True)
        tree = random_tree(seed, leaves=60, longest=400, depth=5, most_new=30)
        units = plan_units(tree.rows, find_shared(tree.rows, tree.table), shape,
                           room(tree.rows, shape))
        run(shape, tree.rows, tree.table, tree.slots, units, room(tree.rows, shape), dtype, seed,
            True, cuda=True)
