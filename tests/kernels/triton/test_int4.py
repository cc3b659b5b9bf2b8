"""Products with 4-bit weights against float32 references of the dense matrix."""

from __future__ import annotations

import os

import pytest
import torch

from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import fused_linear_triton
from sglc.kernels.int4 import Int4Matrix
from sglc.kernels.int4_order_triton import int4_order_triton
from sglc.kernels.int4_pack import dense_triton
from sglc.kernels.int4_triton import pack_int4_triton
from sglc.kernels.rms_norm import rms_norm_torch
from tests.kernels.triton.places import Place, close

pytestmark = pytest.mark.gpu

# Cases of their own, as a GPU's compilations take a minute each.
DTYPES = [torch.float32] if os.environ.get("TRITON_INTERPRET") == "1" else [
    torch.float32, torch.bfloat16, torch.float16]


def matrix(place: Place, outs: int, width: int, size: int, order: bool = False) -> Int4Matrix:
    """Random, with zeros of 0 to 16; with `order`, columns of a group lie anywhere."""
    groups = width // size
    group_of = None
    if order:
        some = torch.randperm(width, generator=place.generator) // size
        group_of = some.to(place.device)
    scales = place.randn(outs, groups, dtype=torch.float16) / width**0.5 / 5
    return Int4Matrix(place.integers(0, 16, outs, width, dtype=torch.uint8), scales,
                      place.integers(0, 17, outs, groups, dtype=torch.uint8), group_of)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["plain", "norm", "residual", "gated", "norm gated", "all"])
def test_int4_linear(place: Place, form: str, dtype: torch.dtype) -> None:
    """Of one row, few and many; twice, with equal bits."""
    sizes = [(48, 96, 32, False), (40, 128, 64, True)]
    if not place.tiny:
        sizes += [(4096, 4096, 128, False), (4096, 4096, 32, True), (6144, 4096, 4096, False),
                  (4096, 14336, 128, True), (28672, 4096, 128, False)]
    for outs, width, size, order in sizes:
        whole = matrix(place, outs, width, size, order)
        packed = pack_int4_triton(whole)
        assert packed is not None and (packed.order is not None) == order
        weight = whole.dense(torch.float32)
        gain = place.randn(width, dtype=dtype) if "norm" in form or form == "all" else None
        gated = "gated" in form
        for rows in (1, 3) if place.tiny else (1, 2, 7, 16, 33, 64, 65, 512):
            x = place.randn(rows, width, dtype=dtype)
            old = place.randn(rows, outs, dtype=dtype) if form in ("residual", "all") else None
            exact = fused_linear_torch(x.float(), weight, gain if gain is None else
                                       gain.float(), 1e-5, gated=gated)
            exact = exact if old is None else exact + old.float()
            results = []
            for _ in range(2):
                residual = None if old is None else old.clone()
                results.append(fused_linear_triton(x, packed, gain, 1e-5, residual, gated))
                assert residual is None or results[-1] is residual
            # What codes add to sums takes some of float32's last bits.
            close(results[0], exact, dtype, (4 if dtype is torch.float32 else 1) << gated)
            assert torch.equal(*results)
            if form == "plain":
                wide = fused_linear_triton(x, packed, out_dtype=torch.float32)
                assert wide.dtype is torch.float32
                close(wide, exact, dtype, 4 if dtype is torch.float32 else 1)


@pytest.mark.parametrize("rows", [0, 1, 3, 8, 40])
def test_inputs_in_order(place: Place, rows: int) -> None:
    """With a norm or without; few rows, which several programs share, as each of them alone."""
    for width in (96, 1056, place.pick(640, 14336)):
        order = torch.randperm(width, generator=place.generator).int().to(place.device)
        for dtype in {*place.dtypes, torch.float16}:
            x = place.randn(rows, width, dtype=dtype)
            assert torch.equal(int4_order_triton(x, order, None, 0.0), x[:, order.long()])
            for kind in (dtype, torch.float32):  # some families' norms are float32
                gain = place.randn(width, dtype=kind)
                found = int4_order_triton(x, order, gain, 1e-5)
                assert found.dtype is dtype
                if rows:
                    exact = rms_norm_torch(x.float(), gain.float(), 1e-5)[:, order.long()]
                    close(found, exact, dtype)
                if 0 < rows <= 8:
                    assert torch.equal(int4_order_triton(x[-1:], order, gain, 1e-5), found[-1:])


def test_int4_dense(place: Place) -> None:
    for outs, width, size, order in ((5, 96, 32, True), (7, 64, 64, False), (
            place.pick(3, 512), place.pick(160, 4096), place.pick(160, 128), True)):
        whole = matrix(place, outs, width, size, order)
        packed = pack_int4_triton(whole)
        assert packed is not None
        dense = dense_triton(packed, torch.float32)
        exact = whole.dense(torch.float32)
        expected = exact if packed.order is None else exact[:, packed.order]
        assert torch.equal(dense, expected)


def test_few_rows_of_int4_do_not_depend_on_their_number(place: Place) -> None:
    width = place.pick(96, 4096)
    packed = pack_int4_triton(matrix(place, place.pick(48, 4096), width, 32))
    assert packed is not None
    for dtype in place.dtypes:
        x = place.randn(16, width, dtype=dtype)
        # As many as one tile of rows holds, 8 or 16, have one way to be computed.
        for most, fewer in ((16, (9,)), (8, (1, 2))):
            whole = fused_linear_triton(x[:most], packed)
            for rows in fewer:
                assert torch.equal(fused_linear_triton(x[:rows], packed), whole[:rows])


@pytest.mark.parametrize("rows", [1, 3, 12, 20, 40])
def test_codes_in_the_fraction_of_a_float(place: Place, rows: int) -> None:
    """In 16 bits, where codes are no numbers of their own, for every number of tiles of rows."""
    kinds = (torch.float16,) if place.tiny else (torch.float16, torch.bfloat16)
    for width, size in ((96, 32), (192, 64), (256, 128)):
        whole = matrix(place, 64, width, size)
        packed = pack_int4_triton(whole)
        assert packed is not None
        for dtype in kinds:
            x = place.randn(rows, width, dtype=dtype)
            for gated in (False, True):
                exact = fused_linear_torch(x.float(), whole.dense(torch.float32), gated=gated)
                close(fused_linear_triton(x, packed, gated=gated), exact, dtype, 1 << gated)
