"""Shared prefixes are prefilled once: by the plan, not only by the cache."""

from __future__ import annotations

from typing import Any

import pytest

import sglc as sgl

PREFIX = "abcd " * 100  # 500 tokens in bytes


@sgl.program
def asks(s: Any, q: Any) -> None:
    s += PREFIX
    s += "Q" + q + "A:" + sgl.gen("a", max_tokens=4, ignore_eos=True, temperature=0)


ROWS = [{"q": f"{i:03d}"} for i in range(64)]
# The prefix, "Q", then the tree of the 64 numbers (1 + 7 + 64 digits), and "A:" each.
MINIMUM = 500 + 1 + (1 + 7 + 64) + 2 * 64


@pytest.mark.parametrize("radix_cache", [True, False])
def test_64_rows_prefill_the_prefix_once(radix_cache: bool) -> None:
    with sgl.HashModel(radix_cache=radix_cache) as model:
        states = asks.run_batch(ROWS, backend=model, seed=1)
        assert model.stats().prefill_tokens == MINIMUM
        texts = [s.text() for s in states]
        assert model.core.wait_idle(10)
        if not radix_cache:
            assert model.stats().kv_cached == 0  # the plan's KV goes with the plan
    with sgl.HashModel(radix_cache=radix_cache) as model:
        states = asks.run_batch(ROWS, backend=model, seed=1, mode="eager")
        assert [s.text() for s in states] == texts
        alone = 64 * (500 + 1 + 3 + 2)
        assert model.stats().prefill_tokens == (MINIMUM if radix_cache else alone)


def test_forks_and_gens_continue_what_is_there() -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += PREFIX
        forks = s.fork(8)
        for i, f in enumerate(forks):
            f += f"{i}" + sgl.gen("x", max_tokens=3, ignore_eos=True)
        forks.join()
        s += "end" + sgl.gen("y", max_tokens=3, ignore_eos=True)
        s += "more" + sgl.gen("z", max_tokens=3, ignore_eos=True)

    with sgl.HashModel(radix_cache=False) as model:
        program.run(backend=model, seed=1).sync()
        # 500, 8 digits, "end", then the last token of y (it was never fed) and "more".
        assert model.stats().prefill_tokens == 500 + 8 + 3 + 1 + 4


def test_identical_prompts_are_one_forward() -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += PREFIX
        forks = s.fork(16)
        forks += sgl.gen("x", max_tokens=2, ignore_eos=True)
        forks.join()

    with sgl.HashModel(radix_cache=False) as model:
        state = program.run(backend=model, seed=1)
        assert len(set(state["x"])) > 1
        stats = model.stats()
        assert stats.prefill_tokens == 500 and stats.recomputed_tokens == 0


def test_select_is_a_trie() -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += PREFIX + sgl.select("c", ["apple pie", "apple tart", "apricot"])

    with sgl.HashModel() as model:
        program.run(backend=model).sync()
        # "ap" is common to all; of "ple pie", "ple tart", "ricot" the last tokens need no KV.
        trie = len("ap") + len("ple ") + len("pi") + len("tar") + len("rico")
        assert model.stats().prefill_tokens == 500 + trie
        assert model.stats().forward_passes <= 2


def test_what_nobody_reads_is_not_generated() -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += PREFIX
        forks = s.fork(8)
        forks += sgl.gen("x", max_tokens=3, ignore_eos=True)
        s += sgl.gen("y", max_tokens=1, ignore_eos=True)

    with sgl.HashModel() as model:
        program.run(backend=model, seed=1).sync()
        assert model.stats().forward_passes == 1
