"""Every pass, and every prefix of the default pipelines, leaves what a caller can see."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglc import ir
from sglc.ir.module import Module
from sglc.passes import PassContext, PassManager, pipeline
from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.small import small_bpe
from tests.helpers_passes import Outcome, evaluate, make_context
from tests.passes.random_modules import random_module

ARGS = {"x": "an ex", "y": "", "n": 3}
ALONE = ("functionalize", "lower-roles", "fold", "hoist-prefixes", "eliminate-dead",
         "parallelize-forks")
LOWERED = "functionalize,lower-roles,tokenize"
KV = (LOWERED, f"{LOWERED},liveness", f"{LOWERED},schedule",
      f"{LOWERED},lower-select,early-prefill,liveness",
      f"{LOWERED},hoist-prefixes,eliminate-dead,parallelize-forks,liveness,schedule",
      f"{LOWERED},liveness,hoist-prefixes,eliminate-dead,parallelize-forks")
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

small = small_bpe()
vocab = small.vocab
# The same vocabulary behind a pre-tokenizer: stable cuts, and a BOS.
split = BpeTokenizer.from_vocab(
    vocab.tokens, vocab.merges, vocab.special, "smollm", bos_id=vocab.special["<|endoftext|>"],
    eos_ids=[vocab.special["<|im_end|>"]])
TOKENIZERS = (ByteTokenizer(), small, split)

contexts = st.builds(make_context, st.sampled_from(TOKENIZERS), may_stop=st.booleans(),
                     rows=st.integers(1, 3), max_tokens=st.sampled_from((None, 16)))
modules = st.builds(random_module, st.randoms(use_true_random=False))


def model_calls(outcome: Outcome) -> Counter[Any]:
    """The calls, without selects of one choice, which folding decides."""
    return Counter({k: n for k, n in outcome.calls.items()
                    if k[0] == "gen" or len(k[3]) > 1})


def check(module: Module, context: PassContext, spec: str, dead: bool) -> Module:
    """Run passes and compare; with `dead` calls may be missing."""
    want = evaluate(module, ARGS, context)
    out = PassManager(spec, level=3).run(module, context)
    got = evaluate(out, ARGS, context)
    assert got.seen() == want.seen()
    if want.error is None:  # where the program raises, later calls may have started
        if dead:
            assert model_calls(got) <= model_calls(want)
        else:
            assert model_calls(got) == model_calls(want)
    return out


@pytest.mark.parametrize("spec", ALONE)
@settings(max_examples=25, deadline=None, suppress_health_check=_SLOW)
@given(modules, contexts)
def test_a_pass_alone_is_exact_and_idempotent(spec: str, module: Module,
                                              context: PassContext) -> None:
    out = check(module, context, spec, spec == "eliminate-dead")
    assert PassManager(spec).run(out, context) == out
    assert ir.parse(ir.print(out)) == out


@pytest.mark.parametrize("spec", KV)
@settings(max_examples=15, deadline=None, suppress_health_check=_SLOW)
@given(modules, contexts)
def test_token_passes_are_exact(spec: str, module: Module, context: PassContext) -> None:
    out = check(module, context, spec, "dead" in spec)
    assert ir.parse(ir.print(out)) == out


@pytest.mark.parametrize("level", range(4))
@settings(max_examples=15, deadline=None, suppress_health_check=_SLOW)
@given(modules, contexts, st.data())
def test_each_prefix_of_a_default_pipeline_is_exact(
        level: int, module: Module, context: PassContext, data: st.DataObject) -> None:
    names = pipeline(level).split(",")
    length = data.draw(st.integers(1, len(names)))
    check(module, context, ",".join(names[:length]), "eliminate-dead" in names[:length])


@settings(max_examples=25, deadline=None, suppress_health_check=_SLOW)
@given(modules, contexts)
def test_the_input_module_is_left_alone(module: Module, context: PassContext) -> None:
    before = module.clone()
    PassManager(pipeline(2)).run(module, context)
    assert module == before


@settings(max_examples=25, deadline=None, suppress_health_check=_SLOW)
@given(modules, contexts)
def test_unique_prefill_tokens_never_grow(module: Module, context: PassContext) -> None:
    manager = PassManager("hoist-prefixes,eliminate-dead,parallelize-forks,hoist-prefixes",
                          measure=True)
    manager.run(module, context)
    for record in manager.records:
        assert record.prefill is not None and record.prefill_before is not None
        assert record.prefill.tokens <= record.prefill_before.tokens


@pytest.mark.slow
def test_many_larger_programs() -> None:
    for seed in range(400):
        module = random_module(Random(seed), size=30)
        context = make_context(TOKENIZERS[seed % 3], may_stop=seed % 2 == 0, rows=1 + seed % 3)
        check(module, context, pipeline(seed % 4), True)
        check(module, context, KV[seed % len(KV)], True)
