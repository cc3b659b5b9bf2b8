"""Where few tokens are allowed, only their logits are computed, and the token is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc import grammar
from sglc.runtime.engine import EngineCore
from sglc.runtime.few import FewTokens, draw_few
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.request import SamplingParams
from sglc.runtime.sampler import Draw, Sampler
from tests.runtime.common import TOKENIZER, Bytes, ask, request

VOCAB = 900
EOS = 899


def packed(ids: list[int]) -> np.ndarray:
    bits = np.zeros((VOCAB + 31) // 32 * 32, dtype=bool)
    bits[ids] = True
    return np.packbits(bits, bitorder="little").view(np.int32)


@settings(max_examples=150, deadline=None)
@given(st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=18), st.integers(0, 2**64 - 1),
       st.integers(0, 40), st.integers(0, 99), st.fixed_dictionaries({
           "temperature": st.sampled_from([0.0, 1.0, 0.3]), "top_k": st.sampled_from([-1, 2, 40]),
           "top_p": st.sampled_from([1.0, 0.6]), "min_p": st.sampled_from([0.0, 0.2]),
           "min_tokens": st.sampled_from([0, 30]), "frequency_penalty": st.sampled_from([0.0, 0.9]),
           "repetition_penalty": st.sampled_from([1.0, 1.4])}))
def test_the_token_is_that_of_the_whole_row(
        allowed: set[int], key: int, index: int, seed: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy((rng.integers(-8, 8, (1, VOCAB)) / 2).astype(np.float32))  # with ties
    sampler = Sampler(VOCAB, never=[5])
    draw = Draw(SamplingParams(**options), key, stop_ids=[EOS, min(allowed)], constrained=True,
                prompt=rng.integers(0, VOCAB, 50).tolist())
    draw.index = index
    draw.words = packed(sorted(allowed))
    if draw.tally is not None:
        for token in [*list(allowed)[:2], 7]:
            draw.tally.add(token)
    ids = FewTokens(sampler).of(draw)
    if 5 in allowed:
        assert ids is None
        return
    assert ids is not None and ids.tolist() == sorted(allowed)
    few = draw_few(logits[0, torch.from_numpy(ids)], ids, draw)
    assert few == sampler.draw(logits.clone(), [draw]).ids[0]


def test_what_is_few() -> None:
    few = FewTokens(Sampler(VOCAB))
    draw = Draw(SamplingParams(), constrained=True)
    assert few.of(draw) is None  # nothing is bound
    draw.words = packed(list(range(18)))
    ids = few.of(draw)
    assert ids is not None and few.of(draw) is ids
    draw.words = packed(list(range(19)))
    assert few.of(draw) is None
    draw.words = packed([])
    assert few.of(draw) is None
    told = Draw(SamplingParams(top_logprobs=2), constrained=True)
    told.words = packed([3])
    assert few.of(told) is None
    for n in range(3000):  # what is remembered is bounded, and right
        draw.words = packed([n % VOCAB])
        assert few.of(draw).tolist() == [n % VOCAB]
    assert len(few._known) <= 1024


def test_numbers_that_are_none() -> None:
    draw = Draw(SamplingParams(temperature=0.0))
    ids = np.array([3, 9])
    assert draw_few(torch.tensor([float("nan"), 1.0]), ids, draw) == -2
    assert draw_few(torch.tensor([-float("inf")] * 2), ids, draw) == -1


def test_the_head_is_left_alone() -> None:
    class Counting(HashRunner):
        rows = 0
        cells = 0

        def logits(self, hidden: Any) -> Any:
            Counting.rows += len(hidden)
            return super().logits(hidden)

        def logits_of(self, hidden: Any, ids: np.ndarray) -> Any:
            Counting.cells += hidden.shape[0] * len(ids)
            return super().logits_of(hidden, ids)

    tok = Bytes()
    constraint = grammar.compile(regex="(?:yes|no|ok)+[.]?", tokenizer=tok)
    with EngineCore(Counting(tok.vocab_size, tok), tok, kv_tokens=500) as core:
        got = ask(core, [request("q", constraint=constraint, max_tokens=40, key=k)
                         for k in range(4)])
        assert all(r.error is None for r in got)
        stats = core.stats()
        assert 0 < Counting.cells < 6 * stats.decode_tokens
        before = Counting.rows, Counting.cells
        ask(core, [request("q", max_tokens=1)])
        assert (Counting.rows, Counting.cells) == (before[0] + 1, before[1])
    hidden = torch.from_numpy(np.random.default_rng(0).integers(-2**62, 2**62, (40, 1)))
    runner = HashRunner(TOKENIZER.vocab_size, TOKENIZER)
    ids = np.array([0, 7, 255, 256, 260])
    assert (runner.logits_of(hidden, ids) == runner.logits(hidden)[:, ids]).all()


@pytest.mark.parametrize("n", [1, 5, 900])
def test_the_real_heads_agree(engine: Any, n: int) -> None:
    runner = engine.core.runner
    hidden = torch.randn(3, runner.config.hidden_size, generator=torch.Generator().manual_seed(n))
    ids = np.sort(np.random.default_rng(n).choice(runner.vocab_size, n, replace=False))
    torch.testing.assert_close(runner.logits_of(hidden, ids), runner.logits(hidden)[:, ids],
                               atol=1e-4, rtol=1e-5)
