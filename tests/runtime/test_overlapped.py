"""The overlapping loop on the hash model: same answers as one step at a time.

The device is played by a launcher that computes a step at once but gives its outcome only when
asked; stand-ins for tokens are resolved as a device would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.batch import Batch
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.engine import EngineCore
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.launch import Launcher, Outcome
from sglc.runtime.policies import POLICIES
from sglc.runtime.sampler import Sampler
from sglc.runtime.step import Step
from tests.runtime.common import TOKENIZER, Pending, agree, ask, request
from tests.runtime.test_engine_results import batches


@dataclass
class Flight:
    step: Step
    places: list[int]
    outcome: Outcome


class Later(Launcher):
    """Runs ahead; every `fails`-th step fails when its outcome is asked for."""

    def __init__(self, runner: HashRunner, sampler: Sampler, fails: int) -> None:
        super().__init__(runner, sampler)
        self.last = np.empty(0, np.int64)
        self.ahead = 0
        self.flights = 0
        self.fails = fails

    def start(self, step: Step) -> Flight:
        ids = step._ids[:step.size]
        stands = ids < 0
        ids[stands] = self.last[::-1][-1 - ids[stands]]
        early = {seq for seq, _ in step.samples if seq.ids[-1] < 0}
        self.ahead += bool(early)
        for seq in early:
            seq.draw.index += 1
        try:
            outcome = self.launch(step)
        finally:
            for seq in early:
                seq.draw.index -= 1
        n = len(step.samples)
        self.last = np.array(outcome.tokens, np.int64)
        return Flight(step, list(range(n))[::-1], outcome)  # any names will do

    def finish(self, flight: Flight) -> Outcome:
        self.flights += 1
        if self.fails and self.flights % self.fails == 0:
            raise RuntimeError("the device is gone")
        return flight.outcome


class LateRunner(HashRunner):
    """A hash model that reads its page tables through a `PageTable` of few places."""

    fails = 0
    places = 8

    def allocate(self, slots: int) -> None:
        super().allocate(slots)
        self.table = PageTable(max(self.places, 300 if slots > 1000 else 100), 512,
                               torch.device("cpu"))

    def forward(self, batch: Batch) -> torch.Tensor:
        offsets = self.table.offsets(batch.rows)
        at = np.repeat(offsets, [row.n for row in batch.rows]) + batch.positions
        self.table.host[at] = batch.slots
        self.table.device[torch.from_numpy(at)] = torch.from_numpy(batch.slots).int()
        for offset, row in zip(offsets, batch.rows, strict=True):
            for table in (self.table.host, self.table.device.numpy()):
                assert np.array_equal(table[offset:offset + len(row.context)], row.context)
        return super().forward(batch)

    def launcher(self, sampler: Sampler) -> Later:
        self.later = Later(self, sampler, self.fails)
        return self.later


def late(fails: int = 0, **options: object) -> EngineCore:
    runner = LateRunner(TOKENIZER.vocab_size, TOKENIZER, context_length=512)
    runner.fails = fails
    return EngineCore(runner, TOKENIZER, **{"kv_tokens": 4096, **options})  # type: ignore


@given(batches, st.sampled_from([64, 90, 4000]), st.booleans(), st.sampled_from([3, 16, 512]),
       st.sampled_from([2, 256]), st.integers(1, 3), st.sampled_from(list(POLICIES)))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_one_step_at_a_time(batch, kv, radix, chunk, running, parts, policy):
    with late(kv_tokens=kv, radix_cache=radix, max_batch_tokens=chunk,
              max_running=running, policy=policy) as core:
        for part in range(parts):
            asked = batch[part::parts]
            for one, got in zip(asked, ask(core, asked), strict=True):
                agree(one, got, 512)
            core.wait_idle()
            core.check()
        stats = core.stats()
        assert stats.kv_in_use == 0
        assert stats.kv_free + stats.kv_cached == kv
        core.flush_cache()
        assert core.stats().kv_free == kv


def test_it_runs_ahead() -> None:
    with late() as core:
        asked = [request(f"number {i}: ", max_tokens=20 + i % 3, ignore_eos=True,
                         temperature=0.0 if i % 2 else 1.0, key=i) for i in range(20)]
        for one, got in zip(asked, ask(core, asked), strict=True):
            agree(one, got, 512)
        core.wait_idle()
        stats = core.stats()
        assert stats.forward_passes == 22  # no step in vain where lengths are known
        assert stats.decode_tokens == sum(20 + i % 3 for i in range(20)) - 20
        assert core.runner.later.ahead == 21  # type: ignore[attr-defined]


def test_a_failed_step_ends_what_ran_and_no_more() -> None:
    with late(fails=7) as core:
        asked = [request(f"number {i}: ", max_tokens=20) for i in range(8)]
        got = ask(core, asked)
        assert any(r.error is not None for r in got)
        core.wait_idle()
        core.check()
        core.runner.later.fails = 0  # type: ignore[attr-defined]
        for one, result in zip(asked, ask(core, asked), strict=True):
            agree(one, result, 512)
        core.wait_idle()
        core.check()


@pytest.mark.parametrize("radix", [True, False])
def test_cancelled_while_a_step_runs(radix: bool) -> None:
    with late(radix_cache=radix) as core:
        asked = [request(f"number {i}: ", max_tokens=400, ignore_eos=True) for i in range(8)]
        pending = Pending(core, asked)
        core.cancel(asked[::2])
        for i, (one, got) in enumerate(zip(asked, pending.wait(), strict=True)):
            if i % 2:
                agree(one, got, 512)
            else:
                assert got.error is not None and got.error.code == "SGLC506"
        core.wait_idle()
        core.check()
        assert core.stats().kv_in_use == 0
