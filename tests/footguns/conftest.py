"""The model of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m
        m.core.check()
