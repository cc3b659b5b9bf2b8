from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.batch import Batch, Row
from sglc.runtime.hash_model import HashRunner
from tests.runtime.common import TOKENIZER


def run(runner: HashRunner, *parts: tuple[Sequence[int], int, Sequence[int]]) -> list[int]:
    """Hidden states of all tokens of rows given as (new ids, first position, context)."""
    ids, positions, slots, rows = [], [], [], []
    for new, first, context in parts:
        n = len(new)
        rows.append(Row(len(ids), n, np.array(context[:first + n])))
        ids += new
        positions += range(first, first + n)
        slots += context[first:first + n]
    hidden = runner.forward(Batch(np.array(ids), np.array(positions), np.array(slots), rows,
                                  np.arange(len(ids))))
    return hidden[:, 0].tolist()


def fresh() -> HashRunner:
    runner = HashRunner(TOKENIZER.vocab_size, TOKENIZER)
    runner.allocate(64)
    return runner


@given(st.lists(st.integers(0, 255), min_size=2, max_size=20), st.data())
@settings(max_examples=40, deadline=None)
def test_chunks_slots_and_neighbours_do_not_matter(ids, data):
    n = len(ids)
    whole = run(fresh(), (ids, 0, range(n)))
    slots = data.draw(st.permutations(range(64)))
    cut = data.draw(st.integers(1, n - 1))
    runner = fresh()
    parts = run(runner, (ids[:cut], 0, slots), ([7, 7], 0, slots[n:]))[:cut]
    assert parts + run(runner, (ids[cut:], cut, slots)) == whole
    # A row may read what another row of the same step writes.
    assert run(fresh(), (ids[:cut], 0, slots), (ids[cut:], cut, slots)) == whole


def test_every_fault_of_the_page_table_shows():
    ids, n = [1, 2, 1, 3, 1], 5
    good = run(fresh(), (ids, 0, range(n)))[-1]

    def last(context, position=4):
        runner = fresh()
        run(runner, (ids, 0, range(n)), (ids, 0, range(10, 15)), ([9] * 5, 0, range(20, 25)))
        batch = Batch(np.array([1]), np.array([position]), np.array([context[-1]]),
                      [Row(0, 1, np.array(context))], np.array([0]))
        return runner.forward(batch)[0, 0].item()

    assert last([0, 1, 2, 3, 4]) == last([10, 1, 12, 3, 30]) == good
    wrong = [last(c) for c in ([2, 1, 0, 3, 4], [0, 1, 2, 23, 4], [1, 2, 3, 4], [0, 0, 2, 3, 4],
                               [0, 1, 2, 40, 4])] + [last([0, 1, 2, 3, 4], position=5)]
    assert good not in wrong and len(set(wrong)) == len(wrong)


@pytest.mark.parametrize("vocab", [258, 5000])
def test_rates_are_useful(vocab):
    runner = HashRunner(vocab, TOKENIZER, seed=3)
    hashes = torch.from_numpy(np.random.default_rng(0).integers(-2**63, 2**63, (3000, 1)))
    logits = runner.logits(hashes)
    assert logits.shape == (3000, vocab) and logits.dtype == torch.float32
    best = logits.argmax(1)
    assert 1 / 20 < (best == 256).float().mean() < 1 / 8
    ascii_ = ((best >= 32) & (best < 127)) | (best == 10)
    assert ascii_.float().mean() > 0.5
    assert len(best.unique()) > 60
    assert torch.equal(runner.logits(hashes[5:6])[0], logits[5])
