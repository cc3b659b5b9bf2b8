"""Every workload runs the same in both modes and computes nothing twice when memory suffices."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

import sglc
from sglc.workloads import WORKLOADS, Workload
from sglc.workloads.measure import measure
from sglc.workloads.pairs import Contender, run_pairs

NAMES = list(WORKLOADS)


class Watched(sglc.HashModel):  # type: ignore[misc]
    """Keeps what was asked for and answered, beside the engine's own record."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.asked: list[tuple[Any, Any]] = []
        super().__init__(*args, **kwargs)

    def submit(self, requests: Any) -> None:
        for request in requests:
            def done(result: Any, request: Any = request, tell: Any = request.on_done) -> None:
                self.asked.append((request, result))
                tell(result)

            request.on_done = done
        super().submit(requests)


def least_prefill(asked: list[tuple[Any, Any]]) -> int:
    """The definition: distinct prefixes of what was read, less those that decoding wrote.  The
    last token of a generation of fixed length, and of a choice, is not read."""
    prefixes: set[bytes] = set()
    written: set[bytes] = set()
    for request, result in asked:
        assert result.error is None
        for choice in request.choices or [()]:
            ids = array("q", [*request.ids, *choice, *result.ids]).tobytes()
            for n in range(1, len(ids) // 8):
                prefixes.add(ids[:8 * n])
                if n > len(request.ids) + len(choice):
                    written.add(ids[:8 * n])
        if not result.ids and request.kind == "generate":
            prefixes.add(ids)
    return len(prefixes - written)


@pytest.fixture(scope="module")
def model() -> Iterator[Watched]:
    with Watched(kv_tokens=100_000) as model:
        yield model


@pytest.fixture
def case(request: pytest.FixtureRequest) -> tuple[Workload, Any, Any]:
    w = WORKLOADS[request.param]
    return w, w.program(w.small), w.batch(w.small, 3)


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_nothing_is_computed_twice(case: Any, model: Watched) -> None:
    _, program, rows = case
    model.asked.clear()
    m = measure(program, rows, model, "compiled")
    assert m.errors == 0 and m.retractions == 0
    assert m.prefill == m.bound == least_prefill(model.asked)
    assert m.kv_peak <= m.working_set
    assert m.longest <= m.kv_peak


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_modes_agree(case: Any, model: Watched) -> None:
    """The same texts, and the same work but for the order."""
    _, program, rows = case
    texts, work = [], []
    for mode in ("eager", "compiled"):
        states = program.run_batch(rows, backend=model, mode=mode, seed=0, temperature=0)
        texts.append([s.text() for s in states])
        m = measure(program, rows, model, mode)
        work.append((m.bound, m.decode, m.working_set))
    assert texts[0] == texts[1]
    assert work[0] == work[1]
    assert program.compile(**rows[0], backend=model).graph_breaks == 0


@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_memory_for_one_sequence_is_enough(case: Any, model: Watched) -> None:
    _, program, rows = case
    expected = [s.text() for s in program.run_batch(rows, backend=model, seed=0, temperature=0)]
    longest = measure(program, rows, model, "compiled").longest
    with sglc.HashModel(kv_tokens=longest + 1) as small:
        states = program.run_batch(rows, backend=small, seed=0, temperature=0)
        assert [s.text() for s in states] == expected
        assert small.core.wait_idle(10)
        assert small.stats().kv_in_use == 0


def test_rows_come_from_the_seed() -> None:
    for w in WORKLOADS.values():
        assert w.batch(w.small, 1) == w.batch(w.small, 1)
        assert len(w.batch(w.small, 1)) == w.small.rows
        assert w.batch(w.small, 1) != w.batch(w.small, 2)
    ordered, shuffled = (WORKLOADS[n].batch(WORKLOADS[n].small, 0)
                         for n in ("debate", "debate-shuffled"))
    assert ordered != shuffled
    assert sorted(map(str, ordered)) == sorted(map(str, shuffled))


def test_controls_share_nothing_between_rows(model: Watched) -> None:
    w = WORKLOADS["unique"]
    m = measure(w.program(w.small), w.batch(w.small, 0), model, "compiled")
    assert not w.gains
    assert m.hit_rate < 0.01


def test_pairs_take_turns() -> None:
    ours, other = Contender("compiled", "planned"), Contender("eager", "lpm")
    ran: list[Contender] = []

    def seconds(contender: Contender) -> float:
        ran.append(contender)
        return 1.0 if contender is ours else 3.0

    pairs = run_pairs(ours, other, 4, seconds)
    assert ran == list(itertools.chain(*[(ours, other), (other, ours)] * 2))
    assert pairs.ratio == 3.0
    assert "ratio 3.00" in str(pairs)
