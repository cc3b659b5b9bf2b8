"""Planned batches on the engine: prefill at the lower bound, in any memory, and nothing left."""

from __future__ import annotations

import threading
from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc
from sglc.plan.planner import Need
from sglc.progress import Progress
from sglc.runtime.dispatch import Dispatcher
from sglc.workloads import WORKLOADS, Size, Workload
from sglc.workloads.measure import Measured, measure

BASELINES = ("fcfs-lru", "lpm", "dfs-weight", "vllm-apc")


def middle(workload: Workload) -> Size:
    """A size between the small and the full one."""
    full = workload.full
    return replace(full, rows=max(workload.small.rows, full.rows // 6),
                   words=max(8, full.words // 16), tokens=max(1, full.tokens // 16),
                   shared=full.shared // 16, latency=0.01 if full.latency else 0.0)


def quiet(model: Any) -> None:
    """Nothing runs, and nothing is kept for anyone."""
    assert model.core.wait_idle(30)
    model.core.check()
    assert model.stats().kv_in_use == 0
    assert model.core._loop.read(lambda scheduler, _: scheduler.kv.tree.held) == 0


def simulate(program: Any, rows: Any, kv: int, policy: str = "planned", mode: str = "compiled",
             budget: int = 512, tokenizer: str = "small") -> Measured:
    """Eager rows run all at once, as a caller who tunes `num_threads` would have them."""
    with sglc.HashModel(tokenizer, kv_tokens=kv, policy=policy, max_batch_tokens=budget) as model:
        found = measure(program, rows, model, mode, threads=len(rows))
        quiet(model)
    assert found.errors == 0
    return found


def room(full: Measured, share: float) -> int:
    return max(ceil(share * full.working_set), full.longest + 1)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_prefill_at_the_bound(name: str) -> None:
    workload = WORKLOADS[name]
    size = middle(workload)
    if name == "long-chat":
        size = replace(workload.small, rows=1)
    program, rows = workload.program(size), workload.batch(size, 0)
    full = simulate(program, rows, 1 << 20)
    assert full.prefill == full.bound
    half = simulate(program, rows, room(full, 0.5))
    assert half.ratio <= 1.05
    assert half.retractions == 0  # the lengths are known
    for policy in BASELINES:
        other = simulate(program, rows, room(full, 0.5), policy, "eager")
        # Where sampled text differs nothing else does: lengths are the same.
        assert half.prefill * other.bound <= other.prefill * half.bound * 1.001
    if name in ("tree", "debate-shuffled"):
        quarter = simulate(program, rows, room(full, 0.25))
        assert quarter.ratio <= 1.1
        assert quarter.retractions == 0


@pytest.mark.parametrize("name", ["tree", "debate", "chains", "vote", "judge", "extract", "unique"])
def test_no_more_steps_than_eager(name: str) -> None:
    workload = WORKLOADS[name]
    size = middle(workload)
    program, rows = workload.program(size), workload.batch(size, 0)
    planned = simulate(program, rows, 1 << 20, budget=2048)
    eager = simulate(program, rows, 1 << 20, mode="eager", budget=2048)
    assert planned.steps <= eager.steps


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORKLOADS))
def test_prefill_at_the_bound_at_full_size(name: str) -> None:
    workload = WORKLOADS[name]
    size = replace(workload.full, latency=min(workload.full.latency, 0.02))
    program, rows = workload.program(size), workload.batch(size, 0)
    real = {"budget": 2048, "tokenizer": "smollm2"}
    full = simulate(program, rows, 1 << 23, **real)
    assert full.prefill == full.bound
    half = simulate(program, rows, room(full, 0.5), **real)
    assert half.ratio <= 1.05 and half.retractions == 0
    if name in ("tree", "debate-shuffled"):
        quarter = simulate(program, rows, room(full, 0.25), **real)
        assert quarter.ratio <= 1.1 and quarter.retractions == 0
        lpm = simulate(program, rows, room(full, 0.25), "lpm", "eager", **real)
        assert lpm.ratio >= 2


# -- any memory ------------------------------------------------------------------------------


@sglc.program
def tools(s, q, tool):
    s += "Question: " + q + "\n"
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += f"Idea {i}: " + sglc.gen("idea", max_tokens=5)
    s += "Found: " + tool(forks[0]["idea"]) + "\n"
    s += sglc.select("kind", choices=["good", "bad"])
    if s["kind"] == "good":
        s += sglc.gen("more", max_tokens=9)
    s += forks[1]["idea"] + sglc.gen("end", max_tokens=4)


def shout(text: str) -> str:
    return text.upper()[:6]


def told(states: Any) -> list[Any]:
    return [(state.text(), state.token_ids()) if state.error() is None
            else type(state.error()) for state in states]


@settings(max_examples=1000 if settings().max_examples >= 1000 else 12, deadline=None)
@given(share=st.floats(0.0, 1.2), budget=st.integers(8, 64), rows=st.integers(1, 7),
       name=st.sampled_from(["tools", "tree", "tips", "debate-shuffled"]), seed=st.integers(0, 9))
def test_any_memory_gives_the_same_ids(share: float, budget: int, rows: int, name: str,
                                       seed: int) -> None:
    if name == "tools":
        program: Any = tools
        batch = [{"q": f"what {i % 3} {seed}", "tool": shout} for i in range(rows)]
    else:
        workload = WORKLOADS[name]
        size = replace(workload.small, rows=rows)
        program, batch = workload.program(size), workload.batch(size, seed)
    with sglc.HashModel("small", kv_tokens=1 << 16) as model, model.record() as record:
        wanted = told(program.run_batch(batch, backend=model, mode="eager", seed=seed))
        full = record.lower_bound()
    kv = max(ceil(share * full.positions), full.longest + 1)
    with sglc.HashModel("small", kv_tokens=kv, max_batch_tokens=budget) as model:
        assert told(program.run_batch(batch, backend=model, seed=seed)) == wanted
        quiet(model)


def test_reservations_cover_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes as tokens and outputs of known size: what is reserved is what there is."""
    needs: dict[int, tuple[Need, int]] = {}
    wrapped = Dispatcher._need

    def measured(self: Dispatcher, entry: Any) -> Any:
        found = wrapped(self, entry)
        needs[entry.instance.row] = found, max([g.length for g in entry.groups], default=0)
        return found

    monkeypatch.setattr(Dispatcher, "_need", measured)

    @sglc.program
    def bounded(s, q, words):
        s += "Some question: " + q + "\n"
        forks = s.fork(3)
        for f in forks:
            f += sglc.gen("a", regex="[a-z]{7}") + " then " + words
            f += sglc.gen("b", regex="[0-9]{4}")
        s += f"All of {forks[0]['a']} and {forks[1]['b']}: " + sglc.select("c", ["x", "yes"])
        if s["c"] == "x":
            s += " so " + sglc.gen("d", regex="[a-z]{12}")
        else:
            s += " but " + words

    rows = [{"q": "why " * (i + 1), "words": "w" * (5 * i)} for i in range(4)]
    with sglc.HashModel(kv_tokens=4096) as model:
        for row in rows:
            model.flush_cache()
            with model.record() as record:
                bounded.run_batch([row], backend=model)[0].sync()
            need, shared = needs.pop(0)
            used = record.lower_bound().positions
            assert used <= need.total + shared <= 1.6 * used
            assert need.kept <= need.peak <= need.total


# -- what goes wrong -------------------------------------------------------------------------


def test_rows_that_fail_leave_nothing() -> None:
    def broken(text: str) -> str:
        raise ValueError(text)

    batch = [{"q": f"q{i}", "tool": broken if i % 3 == 1 else shout} for i in range(9)]
    batch[4]["q"] = "much too long " * 60
    with sglc.HashModel(kv_tokens=200, max_batch_tokens=32) as model:
        states = tools.run_batch(batch, backend=model)
        errors = [state.error() for state in states]
        quiet(model)
    for i, error in enumerate(errors):
        if i == 4:
            assert getattr(error, "code", "") == "SGLC502"
        elif i % 3 == 1:
            assert isinstance(error, ValueError)
        else:
            assert error is None


def test_interrupted_while_most_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", interrupted)
    batch = [{"q": f"q{i}", "tool": shout} for i in range(60)]
    with sglc.HashModel(kv_tokens=200, max_batch_tokens=32) as model:
        states = tools.run_batch(batch, backend=model)
        errors = [state.error() for state in states]
        quiet(model)
    assert sum(error is None for error in errors) < 60
    assert {getattr(error, "code", None) for error in errors} <= {None, "SGLC506"}


def test_runs_beside_a_batch() -> None:
    batch = [{"q": f"q{i}", "tool": shout} for i in range(30)]
    with sglc.HashModel(kv_tokens=260, max_batch_tokens=32) as model:
        alone = told([tools.run(**batch[3], backend=model, seed=5)])
        found: list[Any] = []
        thread = threading.Thread(
            target=lambda: found.extend(tools.run_batch(batch, backend=model)))
        thread.start()
        beside = [told([tools.run(**batch[3], backend=model, seed=5)]) for _ in range(4)]
        thread.join(60)
        assert beside == [alone] * 4
        assert [s.error() for s in found] == [None] * 30
        quiet(model)


def test_lengths_that_are_learned() -> None:
    """Outputs far below their limit: nobody waits for memory that the limit would take."""
    @sglc.program
    def open_chat(s, q):
        for i in range(3):
            s += q + f" {i}" + sglc.gen(f"a{i}", max_tokens=2000, stop=["a", "b", "c", "d"])

    rows = [{"q": f"some question {i}"} for i in range(24)]
    with sglc.HashModel(kv_tokens=4000, max_batch_tokens=64) as model:
        with model.record() as record:
            for state in open_chat.run_batch(rows, backend=model):
                assert state.error() is None
        bound = record.lower_bound()
        stats = model.stats()
        quiet(model)
    assert stats.prefill_tokens <= 1.1 * bound.prefill
