"""All passes by name, and which run by default."""

from __future__ import annotations

from sglc.passes.base import Pass
from sglc.passes.eliminate_dead import EliminateDead
from sglc.passes.fold import Fold
from sglc.passes.functionalize import Functionalize
from sglc.passes.hoist_prefixes import HoistPrefixes
from sglc.passes.liveness import Liveness
from sglc.passes.lower_roles import LowerRoles
from sglc.passes.parallelize_forks import ParallelizeForks
from sglc.passes.schedule import Schedule
from sglc.passes.tokenize import Tokenize

PASSES: dict[str, type[Pass]] = {p.name: p for p in (
    Functionalize, LowerRoles, Fold, HoistPrefixes, EliminateDead, ParallelizeForks, Tokenize,
    Liveness, Schedule)}
"""Every pass, in the order of the default pipeline."""

# Prefixes are merged before folding, which would hide that they are equal, and after it, when
# more are.
DEFAULT_PIPELINE: tuple[str, ...] = (
    "functionalize,lower-roles,tokenize,liveness,schedule",
    "functionalize,lower-roles,fold,eliminate-dead,tokenize,liveness,schedule",
    "functionalize,lower-roles,hoist-prefixes,fold,hoist-prefixes,eliminate-dead,"
    "parallelize-forks,tokenize,liveness,schedule",
    "functionalize,lower-roles,hoist-prefixes,fold,hoist-prefixes,eliminate-dead,"
    "parallelize-forks,tokenize,liveness,schedule",
)
"""Specs by level: only what a plan needs; exact and local; exact and global; and whatever the
program itself permits."""

_NEED_TOKENS = ("lower-roles", "tokenize", "liveness", "schedule")


def pipeline(level: int, model_free: bool = False) -> str:
    """The default spec of a level 0 to 3; `model_free`: the part that needs no tokenizer and
    keeps chat roles, for backends that take text and messages."""
    spec = DEFAULT_PIPELINE[level]
    if not model_free:
        return spec
    return ",".join(name for name in spec.split(",") if name not in _NEED_TOKENS)
