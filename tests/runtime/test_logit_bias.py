"""A bias is what the model's logits would be with it added; nobody else in the batch has it."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from sglc.runtime.few import FewTokens
from sglc.runtime.request import SamplingParams
from sglc.runtime.sampler import Sampler
from tests.runtime.test_sampler import NEVER, VOCAB, make, rows

biases = st.dictionaries(st.integers(0, VOCAB + 20), st.floats(-100, 100, width=32), max_size=6)


@given(rows, st.lists(biases, min_size=6, max_size=6))
def test_a_bias_is_added_to_the_logits(given_rows, given_biases):
    sampler = Sampler(VOCAB, NEVER)
    plain, biased, logits, added = [], [], [], []
    for row, bias in zip(given_rows, given_biases, strict=False):
        one, draw, *_ = make(row)
        other = make((replace(row[0], logit_bias=tuple(bias.items())), *row[1:]))[1]
        more = torch.zeros_like(one)
        for token, value in bias.items():
            if token < len(one.reshape(-1)):
                more.reshape(-1)[token] = value
        plain.append(draw)
        biased.append(other)
        logits.append(one.reshape(-1))
        added.append((one + more).reshape(-1))
    got = sampler.draw(torch.stack(logits), biased)
    want = sampler.draw(torch.stack(added), plain)
    assert got.ids == want.ids


def test_reports_are_of_the_models_own_logits():
    sampler = Sampler(VOCAB)
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(1))
    _, draw, *_ = make((_params(), 0, 0, 4, False))
    drawn = sampler.draw(logits.clone(), [draw])
    assert drawn.ids == [5]
    assert drawn.reports[0][0] == torch.log_softmax(logits[0], 0)[5].item()


def test_few_tokens_are_not_enough():
    _, draw, *_ = make((_params(), 0, 0, 5, False))
    assert draw.words is not None
    assert FewTokens(Sampler(VOCAB)).of(draw) is None


def _params():
    return SamplingParams(temperature=0.0, logit_bias=((5, 100.0),), logprobs=True)
