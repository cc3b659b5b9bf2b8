"""What all tests share: hypothesis profiles, and one real engine for a whole session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The default run is the same every time; `--hypothesis-profile slow` looks at new examples.
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=30, derandomize=True, **_COMMON)
settings.register_profile("slow", max_examples=1000, **_COMMON)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """SmolLM2-135M-Instruct, found on this machine or fetched.  Tests leave its settings alone."""
    import sglc

    with sglc.Engine(kv_tokens=8192) as engine:
        yield engine
