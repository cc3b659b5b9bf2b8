from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.noise import _on_device, gumbel_max
from sglc.runtime.philox import philox4x32
from sglc.runtime.request import SamplingParams
from sglc.runtime.sampler import Draw, Sampler, keep_likely, unpack
from tests import reference_calls

VOCAB = 37


@pytest.mark.parametrize(("counter", "key", "words"), [  # Random123's known answers
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
])
def test_philox_known_answers(counter, key, words):
    as_array = [np.array([c], dtype=np.uint64) for c in (*counter, *key)]
    as_tensor = [torch.tensor([c]) for c in (*counter, *key)]
    for v in (as_array, as_tensor):
        assert tuple(int(w[0]) for w in philox4x32(tuple(v[:4]), tuple(v[4:]))) == words


params = st.builds(
    SamplingParams, temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([-1, 1, 2, 5, 30, 100]), top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.1, 0.6]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.0, -0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
    min_tokens=st.sampled_from([0, 3]), stop_token_ids=st.sampled_from([(), (7,), (36, 2)]))
rows = st.lists(st.tuples(params, st.integers(0, 2**64 - 1), st.integers(0, 6),
                          st.integers(0, 2**31), st.booleans()), min_size=1, max_size=6)

NEVER, EOS = (34, 35), (33,)


def make(row) -> tuple[torch.Tensor, Draw, np.ndarray, list[int], list[int]]:
    p, key, index, seed, coarse = row
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(VOCAB + 3) * 3).astype(np.float32)
    if coarse:
        logits = np.round(logits)  # many ties
    prompt = rng.integers(0, VOCAB, 5).tolist()
    out = rng.integers(0, VOCAB, index).tolist()
    allowed = rng.random(VOCAB) < 0.6
    allowed[3] = True
    draw = Draw(p, key, stop_ids={*EOS, *p.stop_token_ids}, constrained=bool(seed % 2),
                prompt=prompt)
    draw.index = index
    for token in out:
        if draw.tally is not None:
            draw.tally.add(token)
    if seed % 2:
        bits = np.zeros(64, dtype=bool)
        bits[:VOCAB] = allowed
        draw.words = np.packbits(bits, bitorder="little").view(np.int32)
    else:
        allowed[:] = True
    return torch.from_numpy(logits), draw, allowed, prompt, out


def expected(row) -> int:
    p, key, index, _, _ = row
    logits, _, allowed, prompt, out = make(row)
    allowed[[i for i in NEVER if i not in p.stop_token_ids]] = False
    ends = [*EOS, *p.stop_token_ids]
    going_on = allowed & ~np.isin(np.arange(VOCAB), ends)
    if index < p.min_tokens and going_on.any():
        allowed = going_on
    return reference_calls.choose(logits.numpy(), allowed, prompt, out, p, key)


@given(rows)
@settings(max_examples=80, deadline=None)
def test_draws_are_the_reference_s_whatever_the_batch(batch):
    sampler = Sampler(VOCAB, NEVER)
    made = [make(row) for row in batch]
    got = sampler.draw(torch.stack([m[0] for m in made]), [m[1] for m in made]).ids
    assert got == [expected(row) for row in batch]
    for row, token in zip(batch, got, strict=True):
        alone = make(row)
        assert sampler.draw(alone[0][None].clone(), [alone[1]]).ids == [token]


@given(st.integers(0, 2**31), st.sampled_from([0.2, 3.0, 60.0]), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_noise_for_few_and_for_all_tokens_agree(seed, spread, n):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.standard_normal((n, 1001)) * spread)
    counters = rng.integers(0, 2**32, (n, 3), dtype=np.uint64)
    want = [int(np.argmax(s.numpy() + reference_calls.gumbel(
        int(c[1]) | int(c[2]) << 32, int(c[0]), 1001))) for s, c in
        zip(scores, counters, strict=True)]
    assert gumbel_max(scores, counters) == want
    assert _on_device(scores, torch.from_numpy(counters.view(np.int64))) == want


def test_samples_follow_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    want = torch.softmax(logits, 0).numpy()
    n = 4000
    scores = logits.double().repeat(n, 1)
    counters = np.array([(i % 7, i, 5) for i in range(n)], dtype=np.uint64)
    freq = np.bincount(gumbel_max(scores, counters), minlength=4) / n
    assert np.abs(freq - want).max() < 4 * np.sqrt(0.25 / n)


def test_filters_keep_exactly_what_they_say():
    scores = torch.log(torch.tensor([[0.4, 0.1, 0.2, 0.2, 0.1]], dtype=torch.float64))

    def kept(**options):
        out = keep_likely(scores.clone(), [SamplingParams(**options)])
        return torch.isfinite(out)[0].nonzero()[:, 0].tolist()

    assert kept(top_k=2) == [0, 2]
    assert kept(top_k=3) == [0, 2, 3]
    assert kept(top_p=0.3) == [0]
    assert kept(top_p=0.5) == [0, 2]
    assert kept(top_p=0.85) == [0, 1, 2, 3]
    assert kept(min_p=0.3) == [0, 2, 3]
    assert kept(top_k=3, top_p=0.5) == [0]  # renormalised: 0.5, 0.25, 0.25
    assert kept() == [0, 1, 2, 3, 4]


def test_reports_are_of_raw_logits():
    sampler = Sampler(VOCAB, NEVER)
    logits = torch.randn(2, VOCAB)
    raw = torch.log_softmax(logits, -1)
    plain = SamplingParams(temperature=0)
    asked = SamplingParams(temperature=0.5, top_k=3, frequency_penalty=0.5, top_logprobs=4)
    drawn = sampler.draw(logits.clone(), [Draw(plain), Draw(asked, 5)])
    assert list(drawn.reports) == [1]
    chosen, top = drawn.reports[1]
    assert chosen == float(raw[1, drawn.ids[1]])
    order = sorted(range(VOCAB), key=lambda i: (-float(raw[1, i]), i))[:4]
    assert top == tuple((float(raw[1, i]), i) for i in order)


def test_impossible_and_broken_rows_are_told_apart():
    sampler = Sampler(VOCAB)
    logits = torch.zeros(4, VOCAB)
    logits[0] = -float("inf")
    logits[1, 4] = float("nan")
    for p in (SamplingParams(), SamplingParams(temperature=0)):
        assert sampler.draw(logits.clone(), [Draw(p) for _ in range(4)]).ids[:2] == [-1, -2]


def test_unpack_pads():
    assert unpack(np.array([5], dtype=np.int32), 40).nonzero()[0].tolist() == [0, 2]
