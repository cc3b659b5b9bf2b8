"""The torch references against their definitions, and every faster form against the same."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from sglc.errors import ModelError
from sglc.kernels.attention import attention_torch
from sglc.kernels.registry import AVAILABLE, IMPLEMENTATIONS, load_function, resolve
from sglc.kernels.rms_norm import rms_norm_torch
from sglc.kernels.rope import rope_angles_torch, rope_frequencies, rope_torch
from sglc.kernels.silu_mul import silu_mul_torch
from sglc.kernels.store_kv import store_kv_torch


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["torch", "onednn"])
def test_linear(backend: str, dtype: torch.dtype) -> None:
    if backend != "torch" and not load_function(AVAILABLE[backend])(dtype):
        pytest.skip(f"{backend} does not compute in {dtype} here")
    pack = load_function(IMPLEMENTATIONS["pack_linear"][backend])
    linear = load_function(IMPLEMENTATIONS["linear"][backend])
    weight = torch.randn(40, 96).to(dtype)
    packed = pack(weight)
    for rows in (0, 1, 2, 3, 16, 65):
        x = torch.randn(rows, 96)
        y = linear(x, packed)
        assert y.shape == (rows, 40) and y.dtype is torch.float32
        exact = x.to(dtype).double() @ weight.double().T
        if dtype is torch.bfloat16:
            assert torch.equal(y, y.bfloat16().float())
            torch.testing.assert_close(y.double(), exact, rtol=2**-7, atol=1e-2)
        else:
            torch.testing.assert_close(y.double(), exact, rtol=0, atol=5e-5)
        strided = torch.randn(96, rows).t()  # not contiguous
        torch.testing.assert_close(linear(strided, packed), linear(strided.contiguous(), packed))


def test_rms_norm() -> None:
    x, w = torch.randn(5, 32), torch.randn(32)
    expected = torch.stack([r / math.sqrt(float((r * r).mean()) + 1e-3) * w for r in x])
    torch.testing.assert_close(rms_norm_torch(x, w, 1e-3), expected)


def test_rope_rotates_pairs() -> None:
    heads, dim, theta = 3, 8, 100.0
    positions = torch.tensor([0, 1, 7, 3000])
    x = torch.randn(4, heads, dim)
    y = rope_torch(x, *rope_angles_torch(positions, rope_frequencies(dim, theta)))
    for t, p in enumerate(positions.tolist()):
        for i in range(dim // 2):
            angle = p * theta ** (-2 * i / dim)
            c, s = math.cos(angle), math.sin(angle)
            a, b = x[t, :, i], x[t, :, i + dim // 2]
            torch.testing.assert_close(y[t, :, i], a * c - b * s, atol=1e-3, rtol=0)
            torch.testing.assert_close(y[t, :, i + dim // 2], b * c + a * s, atol=1e-3, rtol=0)
    assert torch.equal(y[0], x[0])


def test_silu_mul() -> None:
    gate, up = torch.randn(3, 10), torch.randn(3, 10)
    both = torch.cat((gate, up), 1)
    before = both.clone()
    torch.testing.assert_close(silu_mul_torch(both), gate / (1 + (-gate).exp()) * up)
    assert torch.equal(both, before)


def test_store_kv() -> None:
    pool = torch.zeros(6, 2, 2, 4)
    k, v = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    store_kv_torch(pool, torch.tensor([4, 0, 5]), k, v)
    assert torch.equal(pool[[4, 0, 5], 0], k) and torch.equal(pool[[4, 0, 5], 1], v)
    assert not pool[1:4].any()


def plain_attention(q: torch.Tensor, kv: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Loop over batch and heads; seen[b, i, j] says whether query i of row b sees key j."""
    out = torch.empty_like(q)
    group = q.shape[2] // kv.shape[3]
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            k, v = kv[b, :, 0, h // group], kv[b, :, 1, h // group]
            scores = (q[b, :, h] @ k.T / math.sqrt(q.shape[3])).masked_fill(~seen[b], -math.inf)
            out[b, :, h] = scores.softmax(-1) @ v
    return out


@pytest.mark.parametrize(("rows", "n", "keys", "heads", "groups"),
                         [(1, 1, 9, 6, 2), (3, 1, 40, 9, 3), (2, 4, 7, 4, 4), (1, 33, 33, 4, 1)])
def test_attention(rows: int, n: int, keys: int, heads: int, groups: int) -> None:
    q = torch.randn(rows, n, heads, 16)
    kv = torch.randn(rows, keys + 3, 2, groups, 16)[:, :keys]
    everything = torch.ones(rows, n, keys, dtype=torch.bool)
    torch.testing.assert_close(attention_torch(q, kv, None, False),
                               plain_attention(q, kv, everything))
    seen = torch.rand(rows, n, keys) < 0.6
    seen[:, :, 0] = True
    mask = torch.zeros(rows, 1, n, keys).masked_fill(~seen[:, None], -math.inf)
    torch.testing.assert_close(attention_torch(q, kv, mask, False), plain_attention(q, kv, seen))
    if n == keys:
        torch.testing.assert_close(attention_torch(q, kv, None, True),
                                   plain_attention(q, kv, everything.tril()))


def test_masked_keys_may_hold_anything_finite() -> None:
    q, kv = torch.randn(1, 1, 2, 16), torch.randn(1, 8, 2, 2, 16)
    mask = torch.zeros(1, 1, 1, 8)
    mask[..., 5:] = -math.inf
    expected = attention_torch(q, kv[:, :5], None, False)
    kv[:, 5:] = 1e30
    torch.testing.assert_close(attention_torch(q, kv, mask, False), expected)


def test_resolve() -> None:
    reference = resolve("torch", torch.float32)
    assert {b for _, b in reference.backends} == {"torch"}
    assert {op for op, _ in reference.backends} == set(IMPLEMENTATIONS)
    best = dict(resolve("auto", torch.float32).backends)
    assert best["linear"] == best["pack_linear"]
    with pytest.raises(ModelError, match="unknown kernels 'quick'"):
        resolve("quick", torch.float32)
    with pytest.raises(ModelError, match="kernels='cuda' needs a GPU"):
        resolve("cuda", torch.float32)
    for by_backend in IMPLEMENTATIONS.values():
        assert "torch" in by_backend
        for spec in by_backend.values():
            assert callable(load_function(spec))
