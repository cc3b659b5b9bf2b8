"""The kernels of a transformer layer against float32 references on random inputs."""

from __future__ import annotations

import pytest
import torch

from sglc.kernels.embed import embed_torch
from sglc.kernels.embed_triton import embed_triton
from sglc.kernels.few_logits import few_logits_torch
from sglc.kernels.few_logits_triton import few_logits_triton
from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import fused_linear_triton, pack_triton
from sglc.kernels.rms_norm import rms_norm_add_torch, rms_norm_torch
from sglc.kernels.rms_norm_triton import rms_norm_add_triton, rms_norm_triton
from sglc.kernels.rope import rope_frequencies
from sglc.kernels.rope_store import rope_store_torch, rope_table
from sglc.kernels.rope_store_triton import rope_store_triton
from sglc.kernels.silu_mul import silu_mul_torch
from sglc.kernels.silu_mul_triton import silu_mul_triton
from tests.kernels.triton.places import Place, close

pytestmark = pytest.mark.gpu


def test_rms_norm(place: Place) -> None:
    for dtype in place.dtypes:
        for rows, width in ((0, 8), (1, 33), (3, 96), (place.pick(2, 517), place.pick(64, 4096))):
            x, w = place.randn(rows, width, dtype=dtype), place.randn(width, dtype=dtype)
            exact = rms_norm_torch(x.float(), w.float(), 1e-5)
            if not rows:
                assert rms_norm_triton(x, w, 1e-5).shape == (0, width)
                continue
            close(rms_norm_triton(x, w, 1e-5), exact, dtype)
            old = place.randn(rows, width, dtype=dtype)
            sums = [old.clone(), old.clone()]
            assert rms_norm_add_triton(x, sums[0], w, 1e-5) is sums[0]
            close(sums[0], rms_norm_add_torch(x.float(), sums[1].float(), w.float(), 1e-5), dtype)


def test_silu_mul(place: Place) -> None:
    for dtype in place.dtypes:
        for rows, width in ((1, 7), (3, 40), (place.pick(2, 300), place.pick(128, 14336))):
            x = place.randn(rows, 2 * width, dtype=dtype) * 4
            close(silu_mul_triton(x), silu_mul_torch(x.float()), dtype)


def test_embed(place: Place) -> None:
    for dtype in place.dtypes:
        for tokens, width in ((1, 5), (7, 40), (place.pick(3, 1000), place.pick(64, 4096))):
            table = place.randn(50, width, dtype=dtype)
            features = place.randn(4, width, dtype=dtype)
            ids = place.integers(0, 50, tokens)
            assert torch.equal(embed_triton(ids, table), embed_torch(ids, table))
            feature_of = place.integers(-4, 4, tokens).clamp(min=-1)
            ids = ids.masked_fill(feature_of >= 0, 10**12)
            assert torch.equal(embed_triton(ids, table, features, feature_of),
                               embed_torch(ids, table, features, feature_of))


@pytest.mark.parametrize("norm", [False, True])
def test_rope_store(place: Place, norm: bool) -> None:
    for dtype in place.dtypes:
        for tokens, heads, groups, dim in ((1, 3, 1, 6), (5, 4, 2, 16), (
                place.pick(2, 700), place.pick(4, 32), place.pick(4, 8), place.pick(16, 128))):
            qkv = place.randn(tokens, (heads + 2 * groups) * dim, dtype=dtype)
            length = place.pick(50, 9000)
            table = rope_table(rope_frequencies(dim, 5e5).to(place.device), length)
            positions = place.integers(0, length, tokens)
            slots = torch.randperm(tokens + 9, generator=place.generator)[:tokens]
            slots = slots.to(place.device)
            if tokens > 2:
                slots[1] = -1
            norms = [place.randn(dim, dtype=dtype) for _ in range(2)] if norm else [None, None]
            pools = [torch.full((tokens + 9, 2, groups, dim), 7.0, dtype=dtype,
                                device=place.device) for _ in range(2)]
            found = rope_store_triton(qkv, positions, slots, table, pools[0], *norms, 1e-6)
            exact = rope_store_torch(qkv.float(), positions, slots, table, pools[1], *norms, 1e-6)
            close(found, exact, dtype)
            close(pools[0], pools[1], dtype)
            touched = torch.zeros(tokens + 9, dtype=torch.bool, device=place.device)
            touched[slots[slots >= 0]] = True
            assert bool((pools[0][~touched] == 7).all())
            assert torch.equal(pools[0][touched, 1], pools[1][touched, 1])


@pytest.mark.parametrize("form", ["plain", "norm", "residual", "gated", "norm gated", "all"])
def test_fused_linear(place: Place, form: str) -> None:
    """Of one row (a kernel), few (another) and many (the library); twice, with equal bits."""
    sizes = [(48, 70), (place.pick(64, 4096), place.pick(96, 4096))]
    if not place.tiny:
        sizes += [(6144, 4096), (4096, 14336), (28672, 4096)]
    for dtype in place.dtypes:
        for outs, width in sizes:
            weight = place.randn(outs, width, dtype=dtype) / width**0.5
            packed = pack_triton(weight)
            gain = place.randn(width, dtype=dtype) if "norm" in form or form == "all" else None
            gated = "gated" in form
            for rows in (1, 3) if place.tiny else (1, 2, 7, 16, 33, 512):
                x = place.randn(rows, width, dtype=dtype)
                plain = fused_linear_torch(x.float(), weight.float(),
                                           None if gain is None else gain.float(), 1e-5,
                                           gated=gated)
                old = place.randn(rows, outs, dtype=dtype) if form in ("residual", "all") else None
                exact = plain if old is None else plain + old.float()
                results = []
                for _ in range(2):
                    residual = None if old is None else old.clone()
                    results.append(fused_linear_triton(x, packed, gain, 1e-5, residual, gated))
                    assert residual is None or results[-1] is residual
                close(results[0], exact, dtype, 2 if gated else 1)
                assert torch.equal(*results)
                if form == "plain":
                    wide = fused_linear_triton(x, packed, out_dtype=torch.float32)
                    assert wide.dtype is torch.float32
                    # float16 sums in cuBLAS are float32 too; only its library splits differ
                    close(wide, exact, torch.float32 if dtype is torch.float32 else torch.float16)
            assert not bool(packed.arrived.any())


def test_few_rows_do_not_depend_on_their_number(place: Place) -> None:
    for dtype in place.dtypes:
        weight = pack_triton(place.randn(place.pick(48, 4096), place.pick(70, 4096), dtype=dtype))
        x = place.randn(16, weight.weight.shape[1], dtype=dtype)
        whole = fused_linear_triton(x, weight)
        for rows in (2, 9):
            assert torch.equal(fused_linear_triton(x[:rows], weight), whole[:rows])


def test_few_logits(place: Place) -> None:
    for dtype in place.dtypes:
        for rows, width, count in ((1, 40, 1), (3, 64, 9), (place.pick(2, 64),
                                                           place.pick(70, 4096),
                                                           place.pick(6, 700))):
            vocab = place.pick(60, 128256)
            head, hidden = place.randn(vocab, width, dtype=dtype), place.randn(rows, width,
                                                                              dtype=dtype)
            ids = place.integers(0, vocab, rows, count, dtype=torch.int32).sort(dim=1).values
            ids[-1, count // 2:] = -1
            found, exact = few_logits_triton(hidden, head, ids), few_logits_torch(hidden, head, ids)
            assert torch.equal(found.isinf(), exact.isinf())
            close(found.masked_fill(ids < 0, 0), exact.masked_fill(ids < 0, 0), torch.float32)
