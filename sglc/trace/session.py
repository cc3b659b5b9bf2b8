"""One program being traced: arguments as symbols, guards taken, operations recorded."""

from __future__ import annotations

from sglc.trace.regions import Regions


class Session(Regions):
    """The trace of one variant.  A new run of the body starts with `restart()`."""
