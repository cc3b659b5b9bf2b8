"""How often the garbage collector comes, while batches run and afterwards."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

import sglc
from sglc.collector import Pace


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_blocks_that_overlap_leave_what_was_before() -> None:
    gc.set_threshold(700, 10, 10)
    pace, first_in, second_in, first_out = Pace(9000), *(threading.Event() for _ in range(3))
    seen: list[int] = []

    def first() -> None:
        with pace.slow():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()

    def second() -> None:
        assert first_in.wait(10)
        with pace.slow():
            second_in.set()
            assert first_out.wait(10)
            seen.append(gc.get_threshold()[0])

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [9000]
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("young", [0, 20_000])
def test_a_slower_pace_and_none_at_all_stay(young: int) -> None:
    gc.set_threshold(young, 10, 10)
    with Pace(9000).slow():
        assert gc.get_threshold() == (young, 10, 10)
    assert gc.get_threshold() == (young, 10, 10)


def test_what_is_set_meanwhile_stays() -> None:
    gc.set_threshold(700, 10, 10)
    with Pace(9000).slow():
        gc.set_threshold(1234, 5, 5)
    assert gc.get_threshold() == (1234, 5, 5)


@pytest.mark.parametrize("mode", ["compiled", "eager"])
def test_batches(mode: str) -> None:
    """Also those that end with an error of the caller's."""
    gc.set_threshold(700, 10, 10)
    seen: list[int] = []

    def look() -> str:
        seen.append(gc.get_threshold()[0])
        return "it"

    @sglc.program
    def looking(s: sglc.State, question: str) -> None:
        s += question + look()
        s += sglc.gen("answer", max_tokens=2)

    with sglc.HashModel(kv_tokens=2000) as model:
        states = looking.run_batch([{"question": "a"}, {"question": "b"}], backend=model,
                                   mode=mode)
        assert [state.error() for state in states] == [None, None]
        assert min(seen) > 700
        with pytest.raises(sglc.SglcError):
            looking.run_batch([{"nothing": "a"}], backend=model, mode=mode)
    assert gc.get_threshold() == (700, 10, 10)
