"""Kernels for `deterministic=True`: a row's bits are the same whatever is computed beside it.

In the interpreter, numpy's product of a row depends on which row of the matrix it is; there, rows
stay where they are, and others change.
"""

from __future__ import annotations

import pytest
import torch

from sglc.kernels.fixed_linear_triton import fixed_linear, logprobs_fixed, rope_linear_fixed
from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import pack_triton
from sglc.kernels.logprobs import logprobs_torch
from sglc.kernels.rms_norm_triton import rms_norm_triton
from sglc.kernels.silu_mul_triton import silu_mul_triton
from tests.kernels.triton.places import Place, close

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("form", ["plain", "norm", "residual", "gated", "wide"])
def test_products(place: Place, form: str) -> None:
    for dtype in place.dtypes:
        products(place, form, dtype)


def products(place: Place, form: str, dtype: torch.dtype) -> None:
    width, outs, rows = place.pick(48, 4096), place.pick(40, 6144), place.pick(40, 700)
    x = place.randn(rows, width, dtype=dtype)
    weight = place.randn(outs, width, dtype=dtype) * width ** -0.5
    norm = place.randn(width, dtype=dtype) if form == "norm" else None
    base = place.randn(rows, outs, dtype=dtype) if form == "residual" else None
    gated, kind = form == "gated", torch.float32 if form == "wide" else None
    packed = pack_triton(weight)

    def product(some: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        residual = None if base is None else base[at].contiguous()
        return fixed_linear(some[at].contiguous(), packed, norm, 1e-5, residual, gated, kind)

    every = torch.arange(rows, device=place.device)
    whole = product(x, every)
    exact = fused_linear_torch(
        x.float(), weight.float(), None if norm is None else norm.float(), 1e-5,
        None if base is None else base.float().clone(), gated, kind)
    close(whole, exact, dtype, 4)
    for count in (1, 2, 3, 16, 17, 33, 64, 129, 300):
        if count <= rows:
            assert torch.equal(product(x, every[:count]), whole[:count]), (dtype, count)
    other = place.randn(rows, width, dtype=dtype)
    other[5], other[rows - 1] = x[5], x[rows - 1]
    assert torch.equal(product(other, every)[[5, rows - 1]], whole[[5, rows - 1]])
    for _ in range(place.pick(0, 5)):
        some = place.integers(0, rows, int(place.integers(1, rows, 1)))
        assert torch.equal(product(x, some), whole[some]), dtype


def test_what_is_done_to_each_row(place: Place) -> None:
    for dtype in place.dtypes:
        each_row(place, dtype)


def each_row(place: Place, dtype: torch.dtype) -> None:
    rows, width = place.pick(20, 300), place.pick(48, 4096)
    x, norm = place.randn(rows, width, dtype=dtype), place.randn(width, dtype=dtype)
    heads, groups, dim = 4, 2, place.pick(8, 128)
    qkv = pack_triton(place.randn((heads + 2 * groups) * dim, width, dtype=dtype))
    q_norm, k_norm = place.randn(dim, dtype=dtype), place.randn(dim, dtype=dtype)
    table = place.randn(rows, dim)
    at = torch.arange(rows, device=place.device)
    logits, tokens = place.randn(rows, place.pick(300, 128256)), at.clone()

    def results(some: torch.Tensor) -> list[torch.Tensor]:
        pool = torch.zeros(rows, 2, groups, dim, dtype=dtype, device=place.device)
        turned = rope_linear_fixed(x[some], qkv, norm, 1e-5, at[some], at[some], table, pool,
                                   q_norm, k_norm)
        return [rms_norm_triton(x[some], norm, 1e-5), silu_mul_triton(x[some]), turned,
                pool[some], *logprobs_fixed(logits[some], tokens[some], 3)]

    whole = results(at)
    close(whole[4], logprobs_torch(logits, tokens, 3)[0], torch.float32)
    for some in (at[:1], at[3:19], at[::3], at.flip(0)):
        for one, all_rows in zip(results(some), whole, strict=True):
            assert torch.equal(one, all_rows[some])
