"""The rows of the reliability matrix: some small in the default run, all whole in the slow one."""

from __future__ import annotations

import pytest

from tests.serve.reliability import ELSEWHERE, ROWS, table

# The others are tests of their own, here or beside what they are about, or take long.
QUICK = (1, 5, 12, 15, 16, 18, 19, 23, 24, 28, 30)


@pytest.mark.parametrize("number", QUICK)
def test_small(number: int) -> None:
    if number in (18, 19):  # with a model that sees images
        for name in ("PIL", "transformers"):
            pytest.importorskip(name)
    measure, small = ROWS[number]
    row = measure(**small)
    assert row.ok, row


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", ROWS)
def test_whole(number: int) -> None:
    row = ROWS[number][0]()
    assert row.ok, row


def test_no_row_is_left_out() -> None:
    """Of the thirty, each is measured or said to be elsewhere."""
    assert sorted([*ROWS, *ELSEWHERE]) == list(range(1, 31))
    assert all(f"| {number} |" in table([]) for number in ELSEWHERE)
