"""One server for the tests that leave its settings alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.servers import Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made
        assert made.idle()
