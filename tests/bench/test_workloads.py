"""The peers' tables run what section 12's figures were measured with: lengths and counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bench.workloads import BATCHES, JOBS, examples_of, make_program, prompts_of, rows_of


class Written:
    """What stands in a prompt: words, gens by their length, selects by their choices."""

    def __init__(self, words: int = 0, gens: tuple[Any, ...] = ()) -> None:
        self.words, self.gens = words, gens

    def __add__(self, other: Any) -> Written:
        other = other if isinstance(other, Written) else Written(len(other.split()))
        return Written(self.words + other.words, self.gens + other.gens)

    def __radd__(self, text: str) -> Written:
        return Written(len(text.split())) + self


class Front:
    """A front end that counts."""

    def gen(self, name: str, max_tokens: int, ignore_eos: bool) -> Written:
        assert ignore_eos
        return Written(0, (max_tokens,))

    def select(self, name: str, choices: list[str]) -> Written:
        return Written(0, (tuple(choices),))


class State:
    def __init__(self, gens: Counter[Any], words: int = 0) -> None:
        self.gens, self.words = gens, words

    def __iadd__(self, what: Any) -> State:
        what = Written() + what
        self.gens.update(what.gens)
        self.words += what.words
        return self

    def __getitem__(self, name: str) -> str:
        return "a view"

    def fork(self, n: int) -> list[State]:
        return [State(self.gens, self.words) for _ in range(n)]


GENS = {
    "tree": {64: 3 + 9 + 27, 32: 1},
    "judge": {64: 6, 16: 1},
    "extract": {8: 6},
    "classify": {("a large house", "the old city", "some other people", "nothing at all"): 1},
    "chat": {64: 4},
    "vote": {128: 8, 8: 1},
}
ROWS = {"tree": (32, 512), "judge": (64, 1500), "extract": (128, 1000), "classify": (512, 40),
        "chat": (64, 4 * 256), "vote": (64, 1024)}


@pytest.mark.parametrize("name", list(JOBS))
def test_programs(name: str) -> None:
    rows = rows_of(name, JOBS[name])
    count, words = ROWS[name]
    assert len(rows) == count
    assert len({str(r) for r in rows}) == count
    for row in rows[:3]:
        assert sum(len(v.split()) for value in row.values()
                   for v in ([value] if isinstance(value, str) else value)) == words
    state = State(Counter())
    make_program(name, JOBS[name], Front())(state, **rows[0])
    assert state.gens == GENS[name]
    shared = 2000 if name == "classify" else 0
    assert words + shared <= state.words < words + shared + 80


def test_examples_are_shared() -> None:
    assert len(examples_of(JOBS["classify"]).split()) == 2000


def test_batches() -> None:
    prompts = {name: prompts_of(name) for name in BATCHES}
    sizes = {name: Counter(map(len, p)) for name, p in prompts.items()}
    assert sizes == {"bs1": {128: 1}, "offline": {1024: 256}, "decode256": {128: 256},
                     "sharedprefix": {2176: 512}, "onebigprefix": {4128: 512},
                     "regexjson": {64: 64}}
    heads = Counter(tuple(p[:2048]) for p in prompts["sharedprefix"])
    assert set(heads.values()) == {16} and len(heads) == 32
    assert len({tuple(p[:4096]) for p in prompts["onebigprefix"]}) == 1
    assert {name: b.new for name, b in BATCHES.items()} == {
        "bs1": 256, "offline": 128, "decode256": 512, "sharedprefix": 64, "onebigprefix": 32,
        "regexjson": 200}
    assert prompts_of("offline") == prompts["offline"]


@pytest.mark.parametrize("name", list(JOBS))
def test_smaller(name: str) -> None:
    job = JOBS[name].scaled(0.05)
    assert 2 <= job.instances < JOBS[name].instances
    assert len(rows_of(name, job)) == job.instances
