"""The kernels that only some families need, against float32 references: experts, GELU, biases,
scaled embeddings, a norm that is added."""

from __future__ import annotations

import pytest
import torch

from sglc.kernels.embed import embed_torch
from sglc.kernels.embed_triton import embed_triton
from sglc.kernels.experts import experts_torch
from sglc.kernels.experts_triton import experts_fixed, experts_triton
from sglc.kernels.fixed_linear_triton import fixed_linear
from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import fused_linear_triton, pack_triton
from sglc.kernels.gelu_mul import gelu_mul_torch
from sglc.kernels.gelu_mul_triton import gelu_mul_triton
from sglc.kernels.rms_norm import rms_norm_add_torch
from sglc.kernels.rms_norm_triton import rms_norm_add_triton
from sglc.kernels.rope import rope_frequencies
from sglc.kernels.rope_store import rope_store_torch, rope_table
from sglc.kernels.rope_store_triton import rope_store_triton
from sglc.kernels.route_triton import route_triton
from tests.kernels.triton.places import Place, close

pytestmark = pytest.mark.gpu


def test_gelu_mul(place: Place) -> None:
    for dtype in place.dtypes:
        for rows, width in ((1, 7), (place.pick(3, 128), place.pick(40, 24576))):
            x = place.randn(rows, 2 * width, dtype=dtype) * 4
            close(gelu_mul_triton(x), gelu_mul_torch(x.float()), dtype)


def test_gelu_gate(place: Place) -> None:
    """In every form of the product: one row, few, many, and fixed tiles; norms stay float32."""
    for dtype in place.dtypes:
        outs, width = place.pick(48, 2 * 16384), place.pick(70, 2048)
        weight = place.randn(outs, width, dtype=dtype) / width**0.5
        packed, gain = pack_triton(weight), place.randn(width) + 1
        for rows in (1, 3) if place.tiny else (1, 2, 16, 33):
            x = place.randn(rows, width, dtype=dtype)
            exact = fused_linear_torch(x.float(), weight.float(), gain, 1e-5, gated=True, gelu=True)
            for form in (fused_linear_triton, fixed_linear):
                close(form(x, packed, gain, 1e-5, gated=True, gelu=True), exact, dtype, 2)


def test_added_norm_and_scaled_embedding(place: Place) -> None:
    for dtype in place.dtypes:
        for rows, width in ((1, 33), (3, place.pick(96, 3584))):
            x, old = place.randn(rows, width, dtype=dtype), place.randn(rows, width, dtype=dtype)
            gain = place.randn(width)
            exact = rms_norm_add_torch(x.float(), old.float(), gain, 1e-5)
            found = rms_norm_add_triton(x, old, gain, 1e-5)
            assert found is old
            close(found, exact, dtype)
            table, ids = place.randn(9, width, dtype=dtype), place.integers(0, 9, rows)
            close(embed_triton(ids, table, scale=7.3), embed_torch(ids, table.float(), scale=7.3),
                  dtype)


@pytest.mark.parametrize("norm", [False, True])
def test_biases_of_queries_keys_and_values(place: Place, norm: bool) -> None:
    for dtype in place.dtypes:
        for tokens, heads, groups, dim in ((1, 3, 1, 6), (
                place.pick(3, 300), place.pick(4, 28), place.pick(2, 4), place.pick(16, 128))):
            qkv = place.randn(tokens, (heads + 2 * groups) * dim, dtype=dtype)
            bias = place.randn(qkv.shape[1]) * 5
            table = rope_table(rope_frequencies(dim, 5e5).to(place.device), 50)
            positions = place.integers(0, 50, tokens)
            slots = torch.arange(tokens, device=place.device)
            norms = [place.randn(dim, dtype=dtype) for _ in range(2)] if norm else [None, None]
            pools = [torch.zeros(tokens, 2, groups, dim, dtype=kind, device=place.device)
                     for kind in (dtype, torch.float32)]
            found = rope_store_triton(qkv, positions, slots, table, pools[0], *norms, 1e-6, bias)
            exact = rope_store_torch(qkv.float(), positions, slots, table, pools[1], *norms, 1e-6,
                                     bias)
            close(found, exact, dtype)
            close(*pools, dtype)


def sizes(place: Place) -> list[tuple[int, int, int, int, int]]:
    """(tokens, experts, used, hidden, width) to try."""
    if place.tiny:
        return [(1, 4, 2, 20, 24), (34, 2, 1, 16, 17)]
    return [(1, 5, 2, 20, 24), (3, 4, 4, 16, 40), (70, 6, 3, 33, 16), (130, 3, 1, 16, 17),
            (1, 8, 2, 1024, 3584), (16, 8, 2, 4096, 1792), (100, 60, 4, 1024, 704),
            (200, 8, 2, 1024, 3584), (513, 128, 8, 512, 768), (4096, 8, 2, 1024, 1792)]


def test_experts(place: Place) -> None:
    for dtype in place.dtypes:
        for tokens, count, used, hidden, width in sizes(place):
            x = place.randn(tokens, hidden, dtype=dtype)
            both = place.randn(tokens, count + 1)  # of which the last column is something else
            scores = both[:, :count]
            gate_up = place.randn(count, 2 * width, hidden, dtype=dtype) / hidden**0.5
            down = place.randn(count, hidden, width, dtype=dtype) / width**0.5
            gelu, normalised = tokens == 34, tokens in (1, 100, 130)
            exact = experts_torch(x.float(), scores, gate_up.float(), down.float(), used,
                                  normalised, None, gelu)
            for form in (experts_triton, experts_fixed):
                found = form(x, scores, gate_up, down, used, normalised, None, gelu)
                close(found, exact, dtype, 2)
                old = place.randn(tokens, hidden, dtype=dtype)
                sums = old.clone()
                assert form(x, scores, gate_up, down, used, normalised, sums, gelu) is sums
                close(sums, exact + old.float(), dtype, 2)
                if not place.tiny:
                    again = form(x, scores, gate_up, down, used, normalised, None, gelu)
                    assert torch.equal(again, found)


def test_experts_with_one_crowded_and_others_empty(place: Place) -> None:
    for dtype in place.dtypes:
        tokens, count, hidden, width = place.pick(40, 700), 4, 16, 24
        scores = torch.full((tokens, count), -9.0, device=place.device)
        scores[:, 2], scores[0, 3], scores[1:, 0] = 1.0, 0.5, 0.25
        x = place.randn(tokens, hidden, dtype=dtype)
        gate_up = place.randn(count, 2 * width, hidden, dtype=dtype)
        down = place.randn(count, hidden, width, dtype=dtype) / 50
        exact = experts_torch(x.float(), scores, gate_up.float(), down.float(), 2, True)
        close(experts_triton(x, scores, gate_up, down, 2, True), exact, dtype, 2)
        assert experts_triton(x[:0], scores[:0], gate_up, down, 2, True).shape == (0, hidden)


def test_routing(place: Place) -> None:
    """Pairs by expert, an expert's by token, whichever way they are counted."""
    for tokens, count, used in ((3, 8, 2), (
            place.pick(34, 9000), place.pick(6, 60), place.pick(2, 4))):
        scores = place.randn(tokens, count)
        weights, chosen = scores.softmax(-1).topk(used)
        for fixed in (False, True):
            found = route_triton(scores, used, False, fixed)
            torch.testing.assert_close(found.weights, weights)
            order = chosen.flatten().argsort(stable=True)
            assert torch.equal(found.order.long(), order)
            counts = torch.bincount(chosen.flatten(), minlength=count)
            assert torch.equal(found.starts[1:].long(), counts.cumsum(0)) and not found.starts[0]


def test_routing_of_scores_that_are_no_numbers(place: Place) -> None:
    """Each pair still has one place, and a token's experts are its own; weights are no numbers."""
    for tokens, count, used in ((3, 8, 2), (place.pick(34, 9000), 6, 3)):
        scores = place.randn(tokens, count)
        scores[0], scores[2, 1], scores[tokens - 1, 0] = float("nan"), float("inf"), float("nan")
        for normalised in (False, True):
            for fixed in (False, True):
                found = route_triton(scores, used, normalised, fixed)
                order = found.order.long()
                pairs = torch.arange(tokens * used, device=place.device)
                assert torch.equal(order.sort().values, pairs)
                expert = torch.searchsorted(found.starts[1:].long(), pairs, right=True)
                assert int(expert.max()) < count
                of_pair = torch.empty_like(expert).index_copy_(0, order, expert)
                ranked = of_pair.view(tokens, used).sort(-1).values
                assert bool((ranked[:, 1:] > ranked[:, :-1]).all())
                broken = ~scores.isfinite().all(-1)
                assert bool(found.weights[broken].isnan().all())
                assert not bool(found.weights[~broken].isnan().any())


def test_fixed_experts_do_not_depend_on_their_number(place: Place) -> None:
    for dtype in place.dtypes:
        n, hidden, width = place.pick(17, 500), place.pick(16, 1024), place.pick(16, 704)
        x, scores = place.randn(n, hidden, dtype=dtype), place.randn(n, 6)
        gate_up = place.randn(6, 2 * width, hidden, dtype=dtype) / hidden**0.5
        down = place.randn(6, hidden, width, dtype=dtype) / width**0.5
        whole = experts_fixed(x, scores, gate_up, down, 2, True)
        for at in (slice(0, 1), slice(7, 16)):
            part = experts_fixed(x[at], scores[at], gate_up, down, 2, True)
            if place.tiny:  # numpy's product of a row depends on which row of the matrix it is
                close(part, whole[at], dtype)
            else:
                assert torch.equal(part, whole[at])
