"""What all tests share: hypothesis profiles, and one real engine for a whole session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# With no GPU, Triton's kernels run in its interpreter; Triton looks when it is first imported,
# which other packages do too.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Shells start what runs in the background with Ctrl-C ignored, which tests of it would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


ROUND_TRIP_EACH = 8  # in the default run, every so many runs of a pipeline; in the slow one, all


@pytest.fixture(scope="session", autouse=True)
def every_module_round_trips() -> Iterator[None]:
    """Whatever a pipeline is given and gives verifies, and its text parses back to the same."""
    from sglc.passes.manager import PassManager
    from tests.round_trips import ROUND_TRIPS

    run = PassManager.run
    each = 1 if settings().max_examples >= 1000 else ROUND_TRIP_EACH
    count = 0

    def checked(self: Any, module: Any, context: Any = None) -> Any:
        nonlocal count
        out = run(self, module, context)
        count += 1
        large = max(sum(1 for _ in m.walk()) for m in (module, out)) > 5000
        if self.verify and count % (each * 50 if large else each) == 0:
            ROUND_TRIPS.check(module, out)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PassManager, "run", checked)
        yield
