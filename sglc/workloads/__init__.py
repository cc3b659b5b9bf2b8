"""Programs to measure engines and policies with: engine-neutral, generated from a seed.

Generations have fixed lengths, so every way to run a workload does the same work.  The full sizes
are those of the project's measurements against other systems.
"""

from __future__ import annotations

from sglc.workloads import branching, deciding, single
from sglc.workloads.base import Rows, Size, Workload

WORKLOADS: dict[str, Workload] = {
    w.name: w for w in (*branching.WORKLOADS, *deciding.WORKLOADS, *single.WORKLOADS)}
"""All workloads, by name; the controls last."""

__all__ = ["WORKLOADS", "Rows", "Size", "Workload"]
