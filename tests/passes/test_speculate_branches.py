"""Branches that are read while the model decides: what it changes, and what it does not."""

from __future__ import annotations

import time
from array import array
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc import ir
from sglc.passes import PassContext, PassManager
from sglc.runtime.request import Request, Result
from sglc.workloads import WORKLOADS
from sglc.workloads.measure import Measured, measure
from tests.helpers_passes import evaluate, make_context
from tests.passes.random_modules import random_module
from tests.passes.test_pass_semantics import ARGS, TOKENIZERS

ROUTER = WORKLOADS["router"]
RULES = {tool: f" Rules of {tool}: do as {tool} does, and nothing else." for tool in "abcd"}
LOWERED = "functionalize,lower-roles,refine-choices,tokenize"


def choose(s: Any, q: Any) -> None:
    s += "Question: " + q + "\nTool: "
    s += sgl.select("tool", choices=list(RULES))
    for tool, rule in RULES.items():
        if s["tool"] == tool:
            s += rule + "\nInput:"
    s += sgl.gen("input", max_tokens=4, ignore_eos=True)


def chat(s: Any, q: Any) -> None:
    """Control tokens and a gen that decides, three decisions deep."""
    s += sgl.user("Which? " + q)
    s += sgl.assistant(sgl.select("tool", choices=["ab", "abc", "b"]))
    if s["tool"] == "b":
        s += sgl.user("You said " + s["tool"] + ". Are you sure?")
    else:
        s += sgl.user("That begins with a. Is that right?")
    s += sgl.assistant_begin()
    s += sgl.gen("sure", regex="yes|no", max_tokens=8)
    if s["sure"] == "yes":
        s += " And why is that so? " + sgl.gen("why", max_tokens=5)
    else:
        s += " Then say more:" + q + sgl.select("more", choices=["x", "yy"], choices_method=
                                                "unconditional_likelihood_normalized")
    s += sgl.assistant_end()


class Slow(sgl.HashModel):  # type: ignore[misc]
    """A model that takes a time for each step."""

    def __init__(self, seconds_a_step: float, **options: Any) -> None:
        super().__init__(**options)
        runner = self.core.runner
        forward = runner.forward

        def slowly(batch: Any) -> Any:
            time.sleep(seconds_a_step)
            return forward(batch)

        runner.forward = slowly  # type: ignore[method-assign]


def run(program: Any, rows: Any, ride_tokens: int, **options: Any) -> Measured:
    with sgl.HashModel(ride_tokens=ride_tokens, **options) as model:
        out = measure(program, rows, model, "compiled")
        model.core.wait_idle(10)
        model.core.check()
        assert model.stats().kv_in_use == 0
        return out


# --- the pass ---------------------------------------------------------------------------------
modules = st.builds(random_module, st.randoms(use_true_random=False))
contexts = st.builds(make_context, st.sampled_from(TOKENIZERS), may_stop=st.booleans(),
                     max_tokens=st.sampled_from((None, 16)))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules, contexts)
def test_alone_it_only_notes_what_follows(module: Any, context: PassContext) -> None:
    before = PassManager(LOWERED).run(module, context)
    after = PassManager("speculate-branches").run(before, context)
    ir.verify(after)
    assert ir.parse(ir.print(after)) == after
    assert PassManager("speculate-branches").run(after, context) == after
    assert evaluate(after, ARGS, context).seen() == evaluate(before, ARGS, context).seen()
    for op in after.walk():
        op.attrs.pop("then", None)
    assert after == before


def test_random_modules_hold_branches_to_read_ahead() -> None:
    manager = PassManager(f"{LOWERED},speculate-branches")
    found = 0
    for seed in range(60):
        manager.run(random_module(Random(seed)), make_context())
        found += manager.records[-1].stats["calls"]
    assert found > 4


@pytest.mark.parametrize("then", ['"x"', "[[]]", '[["a", 1.5]]', '[["a", -1]]', '[["a", []]]',
                                  '[[1, "a"]]'])
def test_the_verifier_knows_the_form(then: str) -> None:
    text = (f'program @main() {{\n%k = kv.root\n%p, %t: !text, %s = kv.score %k, "a", "b" '
            f"{{path = [0], then = {then}}}\nprompt.return %p\n}}\n")
    with pytest.raises(sgl.SglcError, match="outcomes"):
        ir.verify(ir.parse(text))


# --- running ----------------------------------------------------------------------------------
def test_the_winner_goes_on_without_a_step() -> None:
    """All in the step of the select: its prompt, the choices, and the branches behind them."""
    plain = run(sgl.program(choose), [("who?",)], 0)
    ahead = run(sgl.program(choose), [("who?",)], 300)
    left_out = run(sgl.program(choose, without=("speculate-branches",)), [("who?",)], 300)
    assert plain.steps == left_out.steps == 5
    assert ahead.steps == 4
    lengths = [len(tool + rule) for tool, rule in RULES.items()]
    wasted = sum(lengths) - lengths[0] + 3 * len("\nInput:")
    assert plain.prefill == plain.bound == ahead.bound
    assert ahead.prefill == ahead.bound + wasted
    assert ahead.decode == plain.decode


@pytest.mark.parametrize(("ride_tokens", "rides"), [(0, 0), (155, 0), (170, 1), (10_000, 1)])
def test_what_may_be_wasted_is_limited(ride_tokens: int, rides: int) -> None:
    m = run(sgl.program(choose), [("who?",)], ride_tokens)
    assert (m.prefill > m.bound) == (rides > 0)


def test_tokens_of_other_rows_count() -> None:
    """Many rows fill their steps themselves."""
    rows = [(f"who is number {i}?",) for i in range(12)]
    assert run(sgl.program(choose), rows[:1], 200).ratio > 1
    assert run(sgl.program(choose), rows, 200).ratio == 1
    assert run(sgl.program(choose), rows, 10_000, max_batch_tokens=4096).ratio > 1


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(tokenizer=st.sampled_from([None, "small"]), kv=st.integers(320, 2500),
       chunk=st.sampled_from([5, 64, 512]), ride_tokens=st.sampled_from([0, 60, 5000]),
       policy=st.sampled_from(["planned", "planned", "lpm"]), cache=st.booleans(),
       words=st.lists(st.sampled_from(["who", "what is it", "where", ""]), min_size=1,
                      max_size=6), temperature=st.sampled_from([0, 1]))
def test_it_changes_no_id(tokenizer: Any, kv: int, chunk: int, ride_tokens: int, policy: str,
                          cache: bool, words: list[str], temperature: int) -> None:
    rows = [(w,) for w in words]
    with sgl.HashModel(tokenizer, kv_tokens=kv, max_batch_tokens=chunk, policy=policy,
                       radix_cache=cache, ride_tokens=ride_tokens) as model:
        for body in (chat, choose):
            program = sgl.program(body)
            compiled, eager = [program.run_batch(rows, backend=model, seed=3, mode=mode,
                                                 temperature=temperature)
                               for mode in ("compiled", "eager")]
            assert [s.token_ids() for s in compiled] == [s.token_ids() for s in eager]
            assert all(s.error() is None for s in compiled)
        assert model.core.wait_idle(10)
        assert model.stats().kv_in_use == 0
        model.core.check()


def test_generations_of_few_texts_decide_too() -> None:
    def sure(s: Any, q: Any) -> None:
        s += q + " Sure? " + sgl.gen("sure", regex="yes|no|never", max_tokens=8)
        s += "\nThen go on: " if s["sure"] == "yes" else ".\nThen why do you ask? "
        s += sgl.gen("more", max_tokens=3, ignore_eos=True)

    plain, ahead = [run(sgl.program(sure), [("So?",)], n, tokenizer="small") for n in (0, 200)]
    assert ahead.steps == plain.steps - 1
    assert plain.ratio == 1 < ahead.ratio


def test_the_router_as_a_workload() -> None:
    rows = ROUTER.batch(ROUTER.small, 1)
    program = ROUTER.program(ROUTER.small)
    plain, ahead = [run(program, rows[:1], n, tokenizer="small", max_batch_tokens=1024)
                    for n in (0, 2000)]
    assert ahead.steps == plain.steps - 2  # two decisions
    assert plain.ratio == 1 and ahead.decode == plain.decode and ahead.bound == plain.bound


def test_a_step_is_saved_where_steps_take_time() -> None:
    times = []
    for ride_tokens in (0, 300):
        with Slow(seconds_a_step=0.15, ride_tokens=ride_tokens) as model:
            program = sgl.program(choose)
            program.compile(q="who", backend=model)
            start = time.perf_counter()
            program.run(q="who", backend=model, temperature=0).sync()
            times.append(time.perf_counter() - start)
    assert times[0] - times[1] > 0.05


def test_nothing_is_evicted_for_a_ride() -> None:
    """A pool with no free slot: what is cached stays."""
    with sgl.HashModel(kv_tokens=300, ride_tokens=10_000) as model:
        model.generate(["x" * 200], sampling={"max_new_tokens": 1})
        before = model.stats().cached_tokens
        sgl.program(choose).run(q="who", backend=model, temperature=0).sync()
        m = model.stats()
        assert m.kv_cached <= 300
        model.generate(["x" * 200], sampling={"max_new_tokens": 1})
        assert model.stats().cached_tokens - before >= 199


def test_rides_that_make_no_sense_are_left() -> None:
    """Ids that no model knows, prompts longer than the context, rides of nothing."""
    with sgl.HashModel(context_length=40, ride_tokens=1000) as model:
        results: list[Result] = []
        base = array("q", range(65, 85))
        model.submit([Request("score", base, results.append, choices=(base[:1], base[1:3]),
                              rides=(base, base[:0], array("q", [10**6]), base + base,
                                     base[:5]))])
        assert model.core.wait_idle(10)
        (result,) = results
        assert result.error is None
        assert model.stats().prefill_tokens == 21 + 20  # the rides of 5 and of 20 ids, as one
        model.core.check()


def test_cancelled_beside_its_rides() -> None:
    with sgl.HashModel(max_batch_tokens=64, ride_tokens=1000) as model:
        results: list[Result] = []
        asked = [Request("score", array("q", range(65, 100)), results.append,
                         choices=(array("q", [65, 66]), array("q", [67])),
                         rides=(array("q", range(70, 90)),)) for _ in range(5)]
        model.submit(asked)
        model.cancel(asked[::2])
        assert model.core.wait_idle(10)
        assert len(results) == 5
        assert model.stats().kv_in_use == 0
        model.core.check()
