"""Scheduling policies by name: the planned one, and those of other systems as baselines.

All run on the same engine, kernels and steps; each says in its module what it imitates.
"""

from __future__ import annotations

from collections.abc import Callable

from sglc.errors import LanguageError
from sglc.runtime.policies.base import Policy
from sglc.runtime.policies.planned import Planned
from sglc.runtime.policies.sglang import DfsWeight, FcfsLru, Lpm
from sglc.runtime.policies.vllm import VllmApc

POLICIES: dict[str, Callable[[], Policy]] = {
    policy.name: policy for policy in (Planned, FcfsLru, Lpm, DfsWeight, VllmApc)}


def make_policy(name: str) -> Policy:
    """A new policy of this name, with nothing learned.  Raises LanguageError (SGLC004)."""
    make = POLICIES.get(name) if isinstance(name, str) else None
    if make is None:
        raise LanguageError("SGLC004", f"there is no scheduling policy {name!r}",
                            fixes=[f"use {', '.join(POLICIES)}"])
    return make()
