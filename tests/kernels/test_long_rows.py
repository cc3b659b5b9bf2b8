"""Which rows are given to FlashInfer, and what it is told about them."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.errors import ModelError
from sglc.kernels import registry
from sglc.kernels.attention_shape import Shape
from sglc.kernels.flashinfer_prefill import DIMS, DTYPES, FASTER, backend_for, worth
from sglc.kernels.long_rows import Ragged, Worth, long_span, ragged, split
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.kernels.registry import FLASHINFER_IMPLEMENTATIONS, load_function, resolve_device
from sglc.runtime.cuda import eager
from sglc.runtime.cuda.attending import UnitSteps
from sglc.runtime.cuda.eager import EagerSteps, fits, long_rows
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.models.config import LlamaConfig

CONFIG = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=96, layers=2, heads=4,
                     kv_heads=2, head_dim=16, rms_eps=1e-5, rope_theta=5000.0, context_length=256,
                     tied=True)


def rows_of(sizes: list[tuple[int, int]], seed: int = 0, stride: int = 0
            ) -> tuple[Rows, np.ndarray, int]:
    """Rows of (new tokens, keys before them) in places of a table, in any order there."""
    rng = np.random.default_rng(seed)
    tokens = [n for n, _ in sizes]
    lengths = [n + before for n, before in sizes]
    stride = stride or max(lengths) + 3
    offsets = rng.permutation(len(sizes)) * stride
    slots = sum(lengths) + 7
    free = rng.permutation(slots)
    table = rng.integers(0, slots, len(sizes) * stride + 1).astype(np.int32)
    for offset, length in zip(offsets.tolist(), lengths, strict=True):
        table[offset:offset + length], free = free[:length], free[length:]
    ends = np.cumsum(tokens)
    return Rows.of((ends - tokens).tolist(), tokens, lengths, offsets.tolist()), table, slots


def by_arrays(q: torch.Tensor, pool: torch.Tensor, rows: Ragged) -> torch.Tensor:
    """Attention by the integers alone, one query at a time."""
    group = q.shape[1] // pool.shape[2]
    out = torch.empty_like(q, dtype=torch.float32)
    for i in range(len(rows.q_ends) - 1):
        a, b, c, d = (int(e) for e in (*rows.q_ends[i:i + 2], *rows.k_ends[i:i + 2]))
        kv = pool[torch.from_numpy(rows.slots[c:d]).long()].float().repeat_interleave(group, 2)
        for t in range(a, b):
            seen = kv[:d - c - (b - 1 - t)]
            scores = (q[t].float() * seen[:, 0]).sum(-1) * q.shape[2] ** -0.5
            out[t] = (scores.softmax(0)[..., None] * seen[:, 1]).sum(0)
    return out


class ByArrays:
    """Rows of many tokens by torch, from what FlashInfer would be told."""

    worth = Worth(4, 4, 2.0)

    def __init__(self) -> None:
        self.planned: list[Ragged] = []

    def plan(self, rows: Ragged) -> Any:
        self.planned.append(rows)
        return lambda q, pool, out: out.copy_(by_arrays(q, pool, rows))


sizes = st.lists(st.tuples(st.one_of(st.just(1), st.integers(1, 9), st.integers(30, 90)),
                           st.integers(0, 60)), min_size=1, max_size=12)


@given(sizes, st.integers(2, 40), st.integers(1, 32), st.floats(1, 4))
def test_the_span_of_long_rows(sizes: list[tuple[int, int]], tokens: int, tile: int,
                               padding: float) -> None:
    rows, _, _ = rows_of(sizes)
    span = long_span(rows, Worth(tokens, tile, padding))
    long = [i for i, (n, _) in enumerate(sizes) if n >= tokens]
    if not long:
        assert span is None
        return
    inside = sizes[long[0]:long[-1] + 1]
    needed = sum(before + i + 1 for n, before in inside for i in range(n))
    # A tile computes the keys that a query of its row sees on average, for each of its places.
    computed = sum(-(-n // tile) * tile / n * sum(before + i + 1 for i in range(n))
                   for n, before in inside)
    if abs(computed - padding * needed) < 1e-6 * computed:
        return
    assert (span is not None) == (computed < padding * needed)
    if span is not None:
        assert (span.first, span.last) == (long[0], long[-1] + 1)
        assert span.start == sum(n for n, _ in sizes[:long[0]])
        assert span.stop - span.start == sum(n for n, _ in inside)
        mine, others = split(rows, span)
        assert mine.tokens.tolist() == [n for n, _ in inside]
        assert sorted([*mine.starts, *others.starts]) == rows.starts.tolist()


def test_decode_rows_stay_and_waste_is_refused() -> None:
    some = worth("fa3", Shape(32, 8, 128))
    prefill = [(1024, 0), (1024, 1976)]
    mixed, _, _ = rows_of([(1, 1499)] * 96 + prefill)
    span = long_span(mixed, some)
    assert span is not None and (span.first, span.last, span.start) == (96, 98, 96)
    assert long_span(rows_of([(1, 1499)] * 96)[0], some) is None
    assert long_span(rows_of([prefill[0], *[(1, 1499)] * 96, prefill[1]])[0], some) is None
    # Short prompts between long ones cost next to nothing.
    assert long_span(rows_of([prefill[0], *[(20, 0)] * 5, prefill[1]])[0], some) is not None


def test_rows_that_do_not_follow_each_other() -> None:
    rows, _, _ = rows_of([(8, 0), (8, 3)])
    turned = Rows(rows.starts[::-1], rows.tokens, rows.lengths, rows.offsets)
    assert long_span(rows, Worth(4, 4, 2.0)) is not None
    assert long_span(turned, Worth(4, 4, 2.0)) is None


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 30)), min_size=1, max_size=5),
       st.integers(0, 1000))
def test_what_plan_is_told_names_every_key(sizes: list[tuple[int, int]], seed: int) -> None:
    rows, table, slots = rows_of(sizes, seed)
    told = ragged(rows, table)
    assert {a.dtype for a in (told.q_ends, told.k_ends, told.slots)} == {np.dtype(np.int32)}
    assert told.q_ends[-1] == rows.total and told.k_ends[-1] == len(told.slots)
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(rows.total, 4, 8, generator=random)
    pool = torch.randn(slots, 2, 2, 8, generator=random)
    expected = paged_attention_torch(q, pool, torch.from_numpy(table), rows)
    assert torch.allclose(by_arrays(q, pool, told), expected, atol=1e-5)


@pytest.mark.parametrize("sizes", [
    [(1, 17), (1, 5), (9, 0), (2, 3), (7, 11)], [(9, 4)], [(1, 9), (8, 0), (1, 4)], [(2, 3)]],
    ids=str)
def test_a_step_of_long_and_short_rows(sizes: list[tuple[int, int]]) -> None:
    """Chunks, decode rows before and after, all long, none long."""
    pytest.importorskip("triton")
    cpu = torch.device("cpu")
    rows, slots_of, slots = rows_of(sizes, stride=64)
    table = PageTable(len(sizes), 64, cpu)
    table.host[:len(slots_of)] = slots_of
    table.device.copy_(torch.from_numpy(table.host))
    units = UnitSteps(CONFIG, torch.float32, cpu)
    long = ByArrays()
    steps = EagerSteps(CONFIG, 64, units, long)  # type: ignore[arg-type]
    attend = steps.attend(rows, table, rows.total)
    told = [n for n, _ in sizes if n >= 4]
    assert len(long.planned) == bool(told)
    for seed in range(CONFIG.layers):
        random = torch.Generator().manual_seed(seed)
        q = torch.randn(rows.total, 4, 16, generator=random)
        pool = torch.randn(slots, 2, 2, 16, generator=random)
        expected = paged_attention_torch(q, pool, table.device, rows)
        assert torch.allclose(attend(q, pool, seed), expected, atol=1e-5)


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    there = {"triton", "flashinfer"}
    monkeypatch.setattr(registry, "find_spec", lambda name: name if name in there else None)
    asked = resolve_device("flashinfer")
    assert asked.long_rows == "flashinfer"
    assert {op for op, b in asked.backends if b == "flashinfer"} == {
        "rms_norm", "silu_mul"}
    assert {b for _, b in asked.backends} == {"triton", "flashinfer"}
    auto = resolve_device("auto")
    assert auto.long_rows == "auto" and {b for _, b in auto.backends} == {"triton"}
    assert [resolve_device(c).long_rows for c in ("triton", "torch")] == ["units"] * 2
    for choice in ("auto", "flashinfer"):  # a row's result must not depend on its step
        fixed = resolve_device(choice, fixed=True)
        assert fixed.long_rows == "units" and "flashinfer" not in dict(fixed.backends).values()
    there.remove("flashinfer")
    assert resolve_device("auto").long_rows == "units"


@pytest.mark.parametrize("operation", sorted(FLASHINFER_IMPLEMENTATIONS))
def test_one_interface_with_tritons(operation: str) -> None:
    pytest.importorskip("triton")
    forms = (FLASHINFER_IMPLEMENTATIONS[operation],
             registry.DEVICE_IMPLEMENTATIONS[operation]["triton"])
    a, b = (inspect.signature(load_function(spec)).parameters for spec in forms)
    assert list(a) == list(b)


def test_where_it_runs() -> None:
    capabilities = [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)]
    assert [backend_for(c) for c in capabilities] == [None, "fa2", "fa2", "fa3", "fa2", "fa2"]
    assert FASTER <= {"fa2", "fa3"}
    model = {name: getattr(CONFIG, name) for name in LlamaConfig.__slots__}

    def plain(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> bool:
        return fits(LlamaConfig(**{**model, "head_dim": 128, **changes}), dtype)

    assert plain() and plain(torch.float16) and plain(head_dim=64)
    assert all(plain(d, head_dim=n) for d in DTYPES for n in DIMS)
    assert not plain(torch.float32)
    for changes in ({"head_dim": 96}, {"head_dim": 256}, {"windows": (0, 100)},
                    {"attention_cap": 50.0}, {"attention_scale": 0.1}):
        assert not plain(**changes)
    assert plain(windows=(0, 256))  # never full


def test_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is opened where, and what happens where it cannot be."""
    pytest.importorskip("triton")
    config = replace(CONFIG, head_dim=64)
    units = UnitSteps(config, torch.bfloat16, torch.device("cpu"))
    opened: list[Any] = []
    monkeypatch.setattr(eager, "FlashInferPrefill", lambda *given: opened.append(given) or given)
    monkeypatch.setattr(eager, "FASTER", frozenset({"fa3"}))
    installed = {"flashinfer-python": "0.6.14"}
    monkeypatch.setattr(eager, "version", installed.__getitem__)

    def open_on(capability: tuple[int, int], choice: str, device: str = "cuda") -> str | None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        found: Any = long_rows(choice, units, config, torch.bfloat16, torch.device(device))
        return None if found is None else found[3]

    assert open_on((9, 0), "flashinfer") == open_on((9, 0), "auto") == "fa3"
    assert open_on((8, 0), "flashinfer") == "fa2" and open_on((8, 0), "auto") is None
    assert open_on((7, 5), "flashinfer") is None and open_on((9, 0), "units") is None
    assert open_on((9, 0), "flashinfer", "cpu") is None
    for other in ("0.6.9", "0.6", "0.7.0rc1", "later"):  # older, or not to be compared
        installed["flashinfer-python"] = other
        assert (open_on((9, 0), "auto") is None) == (other != "0.7.0rc1")
    installed["flashinfer-python"] = "0.10.0.post1"
    assert open_on((9, 0), "auto") == "fa3"
    assert {given[:3] for given in opened} == {
        (units.shape, torch.bfloat16, torch.device("cuda"))} and len(opened) == 5

    def broken(*_: object) -> None:
        raise RuntimeError("Ninja build failed")

    monkeypatch.setattr(eager, "FlashInferPrefill", broken)
    assert open_on((9, 0), "auto") is None
    with pytest.raises(ModelError, match=r"SGLC504(.|\n)*Ninja build failed"):
        open_on((9, 0), "flashinfer")
