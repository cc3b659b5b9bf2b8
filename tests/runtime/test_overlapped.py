"""The overlapping loop on the hash model: same answers as one step at a time.

The device is played by a launcher that computes a step at once but gives its outcome only when
asked; stand-ins for tokens are resolved as a device would.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc import grammar
from sglc.kernels.follow_tokens import follow_tokens_torch
from sglc.kernels.fsm import NO_TABLE
from sglc.kernels.registry import resolve_device
from sglc.kernels.row_masks import MaskRows, row_masks_torch
from sglc.runtime.batch import Batch
from sglc.runtime.cuda.device_sampler import DeviceSampler
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.cuda.simple_draws import SimpleDraws, draws_of
from sglc.runtime.engine import EngineCore
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.launch import Launcher, Outcome
from sglc.runtime.policies import POLICIES
from sglc.runtime.request import Request, Result, SamplingParams
from sglc.runtime.rules import Clock
from sglc.runtime.sampler import Sampler
from sglc.runtime.step import Step
from tests.runtime.common import TOKENIZER, Pending, agree, ask, engine, request
from tests.runtime.test_engine_results import batches
from tests.runtime.test_jump import SAMPLING, TEMPLATES


@dataclass
class Flight:
    step: Step
    places: list[int]
    outcome: Outcome


class Later(Launcher):
    """Runs ahead; every `fails`-th step fails when its outcome is asked for.

    Where rows are in their constraints is what the device's own bookkeeping says, and what they
    may draw is what tables tell of that.
    """

    def __init__(self, runner: HashRunner, sampler: Sampler, fails: int) -> None:
        super().__init__(runner, sampler)
        self.last = np.zeros((2, 1), np.int64)  # by name: tokens, and where they led
        self.ahead = self.again = 0
        self.flights = 0
        self.fails = fails
        width = TOKENIZER.vocab_size
        self.device = DeviceSampler(sampler, width, resolve_device("torch"), torch.device("cpu"))
        self.simple = SimpleDraws(self.device)
        self.clock = Clock()

    def start(self, step: Step) -> Flight:
        ids = step._ids[:step.size]
        stands = ids < 0
        ids[stands] = self.last[0, -1 - ids[stands]]
        draws, after = draws_of(step)
        self.ahead += any(i >= 0 for i in after)
        self.simple.clock = self.clock
        before = self.simple._last
        drawing = self.simple.of(step)
        n = len(step.samples)
        if drawing is None:
            places = list(range(n))[::-1]  # any names will do
            now = torch.tensor(self.device.states(draws, after)[0])
        else:
            places = [k for _, k in step.samples]
            now = torch.from_numpy(drawing.numbers[3, places])
            self.again += before is self.simple._last
        kept = [(draw.number, draw.state, draw.words) for draw in draws]
        for i, (draw, words) in enumerate(zip(draws, self._words(now), strict=True)):
            if words is not None:
                assert after[i] >= 0 or np.array_equal(words, draw.words)
                draw.words = words
            draw.index += after[i] >= 0
        try:
            outcome = self.launch(step)
        finally:
            for draw, drawn, (number, state, words) in zip(draws, after, kept, strict=True):
                draw.index -= drawn >= 0
                draw.enter(state, words)
                draw.number = number
        last = np.full((2, 1 + max(places, default=0)), NO_TABLE)
        last[0, places] = outcome.tokens
        tables = self.device._tables.packed
        if tables is not None and n:
            last[:, places] = follow_tokens_torch(
                tables, now, torch.from_numpy(self.last[1]), torch.from_numpy(last[0, places]))
            outcome.states = last[1, places].astype(np.int32).tolist()
        self.last = last
        return Flight(step, places, outcome)

    def _words(self, now: torch.Tensor) -> list[np.ndarray | None]:
        """The masks of rows by tables alone; None of those without."""
        tables = self.device._tables.packed
        if tables is None or not len(now):
            return [None] * len(now)
        none = torch.zeros(len(now), 0, dtype=torch.int32)
        before = torch.from_numpy(self.last[1])
        full = torch.full((-(-TOKENIZER.vocab_size // 32),), -1, dtype=torch.int32)
        masks = row_masks_torch(MaskRows(full, none, none, tables, now, before)).numpy()
        none_of = (now == NO_TABLE) | (before[(-1 - now).clamp(0, len(before) - 1)] == NO_TABLE) & (
            now < 0)
        return [None if out else mask for mask, out in zip(masks, none_of.tolist(), strict=True)]

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


def late(fails: int = 0, patience: float = 1.0, **options: object) -> EngineCore:
    """An engine that prepares steps ahead if so many rows are likely to be in vain there, and has
    all constraints' tables at once."""
    runner = LateRunner(TOKENIZER.vocab_size, TOKENIZER, context_length=512)
    runner.fails = fails
    core = EngineCore(runner, TOKENIZER, **{"kv_tokens": 4096, **options})  # type: ignore
    core._loop.scheduler.patience = patience
    core._loop._admission.rules.uses = 1
    core._loop._admission.rules._aside = lambda make: make()
    return core


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


def in_parts(end: str) -> Request:
    """A prompt that takes several steps of 8 tokens."""
    return request("a prompt of more than forty tokens, read in " + end, max_tokens=9,
                   temperature=0.0, ignore_eos=True)


def nothing_is_left(core: EngineCore) -> None:
    """Of a step that came to nothing: the same prompt, and one that begins like it, are right."""
    core.wait_idle()
    core.check()
    for end in ("parts", "pieces"):
        (got,) = ask(core, [in_parts(end)])
        agree(in_parts(end), got, 512)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fails", [2, 3, 5, 6, 7])
def test_a_step_that_never_ran_leaves_nothing_behind(policy: str, fails: int) -> None:
    """Nobody reads KV that was to be written by a step that could not be launched."""
    with late(policy=policy, max_batch_tokens=8) as core:
        later = core.runner.later  # type: ignore[attr-defined]
        start, steps = later.start, list[Step]()

        def refusing(step: Step) -> Flight:
            steps.append(step)
            if len(steps) == fails:
                raise RuntimeError("the device is full")
            return start(step)

        later.start = refusing
        (broken,) = ask(core, [in_parts("parts")])
        assert broken.error is not None and broken.error.code == "SGLC503"
        nothing_is_left(core)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fails", [1, 2, 3, 5, 6, 7])
def test_cancelled_in_a_step_that_then_fails(policy: str, fails: int) -> None:
    """What that step was to write is not kept for others, though the rest of the row is."""
    with late(policy=policy, max_batch_tokens=8) as core:
        later = core.runner.later  # type: ignore[attr-defined]
        first = in_parts("parts")
        lost, steps = list[Flight](), list[Step]()
        start, finish = later.start, later.finish

        def losing(step: Step) -> Flight:
            steps.append(step)
            if len(steps) != fails:
                return start(step)
            core.cancel([first])
            lost.append(Flight(step, list(range(len(step.samples))), Outcome(None)))
            return lost[0]

        def failing(flight: Flight) -> Outcome:
            if flight in lost:
                raise RuntimeError("the device has failed")
            return finish(flight)

        later.start, later.finish = losing, failing
        (broken,) = ask(core, [first])
        assert broken.error is not None and broken.error.code in ("SGLC503", "SGLC506")
        assert lost
        nothing_is_left(core)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_defect_while_a_step_runs(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Everybody is answered, and nothing else runs before that step is over."""
    with late() as core:
        later, scheduler = core.runner.later, core._loop.scheduler  # type: ignore[attr-defined]
        start, finish, assume = later.start, later.finish, scheduler.assume
        under_way, calls = list[int](), list[int]()

        def starting(step: Step) -> Flight:
            assert len(under_way) <= 1  # the one before it, at most
            under_way.append(step.number)
            return start(step)

        def finishing(flight: Flight) -> Outcome:
            under_way.remove(flight.step.number)
            return finish(flight)

        def assuming(*args: object) -> bool:
            calls.append(1)
            if len(calls) == at:
                raise RuntimeError("a defect")
            return assume(*args)

        later.start, later.finish = starting, finishing
        monkeypatch.setattr(scheduler, "assume", assuming)
        broken = ask(core, [request(f"number {i}: ", max_tokens=20, ignore_eos=True)
                            for i in range(3)])
        assert [r.error.code for r in broken if r.error] == ["SGLC503"] * 3
        core.wait_idle()
        assert not under_way and core._loop.scheduler is not scheduler
        nothing_is_left(core)


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


CONSTRAINED = st.lists(st.tuples(
    st.text("ab é", min_size=1, max_size=5), st.integers(0, 2), st.integers(0, 99), SAMPLING),
    min_size=1, max_size=7)


@given(st.lists(TEMPLATES, min_size=3, max_size=3), CONSTRAINED, st.sampled_from([90, 4000]),
       st.booleans(), st.sampled_from([3, 16, 512]), st.sampled_from([2, 256]),
       st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(["safe", "safe", "off"]),
       st.sampled_from(list(POLICIES)))
@settings(max_examples=60, deadline=None)
def test_constraints_ahead_of_their_tokens(patterns, rows, kv, radix, chunk, running, patience,
                                           jumps, policy):
    rules = [grammar.compile(regex=p, tokenizer=TOKENIZER) for p in patterns]

    def asked():
        return [request(text, key=key, constraint=rules[n] if key % 5 else None, **sampling)
                for text, n, key, sampling in rows]

    with engine(context_length=512) as plain:
        want = ask(plain, asked())
    with late(patience=patience, kv_tokens=kv, radix_cache=radix, max_batch_tokens=chunk,
              max_running=running, jump_forward=jumps, policy=policy) as core:
        for _ in range(2):
            for a, b in zip(ask(core, asked()), want, strict=True):
                assert (a.ids, a.text, a.finish_reason, a.matched, a.output_tokens) == \
                    (b.ids, b.text, b.finish_reason, b.matched, b.output_tokens)
                assert str(a.error) == str(b.error)
        core.wait_idle()
        core.check()
        stats = core.stats()
        assert stats.kv_in_use == 0
        assert stats.kv_free + stats.kv_cached == kv


@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_constrained_rows_that_have_to_make_room(patience: float) -> None:
    """They go on where they were, jumps and all, when there is room again."""
    rule = grammar.compile(regex="([a-z]{3}, then [0-9]{2}; ){12}", tokenizer=TOKENIZER)

    def asked() -> list[Request]:
        return [request(f"number {i}: ", max_tokens=180, key=i, temperature=0.8, constraint=rule)
                for i in range(6)]

    with engine(context_length=512) as plain:
        want = ask(plain, asked())
    with late(patience=patience, kv_tokens=420) as core:
        for a, b in zip(ask(core, asked()), want, strict=True):
            assert (a.ids, a.text, a.finish_reason) == (b.ids, b.text, b.finish_reason)
        core.wait_idle()
        core.check()
        assert core.stats().retractions > 0


def test_a_constraint_without_jumps_costs_no_step() -> None:
    rule = grammar.compile(regex="[a-z]{40}", tokenizer=TOKENIZER)

    def asked():
        return [request(f"number {i}: ", max_tokens=20, key=i, constraint=rule)
                for i in range(10)]

    with late() as core, engine() as plain:
        for a, b in zip(ask(core, asked()), ask(plain, asked()), strict=True):
            assert a.ids == b.ids
        core.wait_idle()
        assert core.stats().forward_passes == plain.stats().forward_passes == 20
        assert core.runner.later.ahead == 19  # type: ignore[attr-defined]
        assert core.runner.later.again == 19  # type: ignore[attr-defined]


def test_jumps_are_waited_for_where_they_are_many() -> None:
    rule = grammar.compile(regex=r"(one of [0-9], two of [0-9]; ){6}", tokenizer=TOKENIZER)

    def asked():
        return [request(f"number {i}: ", max_tokens=150, key=i, constraint=rule)
                for i in range(10)]

    with late(patience=0.125) as waiting, late() as hasty, engine() as plain:
        want = ask(plain, asked())
        for core in (waiting, hasty):
            assert [r.ids for r in ask(core, asked())] == [r.ids for r in want]
            core.wait_idle()
        passes = plain.stats().forward_passes
        assert waiting.stats().forward_passes == passes
        assert hasty.stats().forward_passes == 2 * passes  # each token brings a jump
        assert waiting.runner.later.ahead == 0  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=30), st.integers(1, 9)), min_size=1,
                max_size=6),
       st.sampled_from([90, 200, 4000]), st.sampled_from([8, 64, 512]), st.integers(0, 3),
       st.sampled_from([0, 40, 1000]))
@settings(max_examples=25, deadline=None)
def test_rides_change_no_answer(asked: list[tuple[str, int]], kv: int, chunk: int, fails: int,
                                ride_tokens: int) -> None:
    """Branches read beside selects and gens, whatever the memory, and with steps that fail."""
    def requests(rides: bool) -> list[Request]:
        out = []
        for text, n in asked:
            ids = array("q", list(text.encode()))
            more = tuple([array("q", list(tail * n)) for tail in (b"xy", b"xyz", b"w") if rides])
            out.append(Request("score", ids, lambda _: None, rides=more,
                               choices=(array("q", list(b"xy")), array("q", list(b"w")))))
            out.append(Request("generate", ids, lambda _: None,
                               SamplingParams(max_tokens=n, temperature=0.0), rides=more))
        return out

    def answers(core: EngineCore, rides: bool) -> list[Result]:
        found: dict[int, Result] = {}
        wanted = requests(rides)
        for i, r in enumerate(wanted):
            r.on_done = lambda result, i=i: found.update({i: result})
        core.submit(wanted)
        assert core.wait_idle(20)
        core.check()
        assert core.stats().kv_in_use == 0
        return [found[i] for i in range(len(wanted))]

    with engine(kv_tokens=4096) as core:
        want = answers(core, False)
    with late(kv_tokens=kv, max_batch_tokens=chunk, ride_tokens=ride_tokens,
              fails=7 * fails) as core:
        for a, b in zip(answers(core, True), want, strict=True):
            assert fails or a.error is None
            if a.error is None:
                assert (a.ids, a.choices, a.text) == (b.ids, b.choices, b.text)
