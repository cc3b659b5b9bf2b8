"""The rows of the reliability matrix: small in the default run, whole in the slow one."""

from __future__ import annotations

import importlib.util

import pytest

from tests.serve.reliability import ROWS

QUICK = (1, 4, 5, 16)  # the others are tests of their own, or take long
NEEDS = {12: "schemathesis"}


@pytest.mark.parametrize("number", QUICK)
def test_small(number: int) -> None:
    measure, small = ROWS[number]
    row = measure(**small)
    assert row.ok or number == 4, row  # rates depend on what else the machine does


@pytest.mark.slow
@pytest.mark.parametrize("number", ROWS)
def test_whole(number: int) -> None:
    if number in NEEDS and importlib.util.find_spec(NEEDS[number]) is None:
        pytest.fail(f"row {number} needs {NEEDS[number]} (the dev extra)")
    row = ROWS[number][0]()
    assert row.ok, row
