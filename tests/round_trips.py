"""The check that every module survives being printed and parsed, and what it costs.

Tests that time the compiler take the check's own time off.
"""

from __future__ import annotations

import time
from typing import Any


class RoundTrips:
    """seconds: processor time that the checks have taken so far, of the threads that made them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def check(self, *modules: Any) -> None:
        """Assert that modules verify, and that their text parses back to the same."""
        from sglc.ir.clone import explain_difference
        from sglc.ir.parser import parse
        from sglc.ir.printer import print_module
        from sglc.ir.verifier import verify

        start = time.thread_time()
        try:
            for m in modules:
                verify(m)
                difference = explain_difference(m, parse(print_module(m)))
                assert difference is None, f"{difference}\n{print_module(m)[:4000]}"
        finally:
            self.seconds += time.thread_time() - start


ROUND_TRIPS = RoundTrips()
