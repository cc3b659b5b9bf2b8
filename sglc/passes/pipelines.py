"""All passes by name, and which run by default."""

from __future__ import annotations

from sglc.passes.base import Pass
from sglc.passes.early_prefill import EarlyPrefill
from sglc.passes.eliminate_dead import EliminateDead
from sglc.passes.fold import Fold
from sglc.passes.functionalize import Functionalize
from sglc.passes.hoist_prefixes import HoistPrefixes
from sglc.passes.liveness import Liveness
from sglc.passes.lower_regex import LowerRegex
from sglc.passes.lower_roles import LowerRoles
from sglc.passes.lower_select import LowerSelect
from sglc.passes.merge_duplicates import MergeDuplicates
from sglc.passes.merge_gens import MergeGens
from sglc.passes.order_bags import OrderBags
from sglc.passes.parallelize_forks import ParallelizeForks
from sglc.passes.refine_choices import RefineChoices
from sglc.passes.schedule import Schedule
from sglc.passes.speculate_branches import SpeculateBranches
from sglc.passes.tokenize import Tokenize

PASSES: dict[str, type[Pass]] = {p.name: p for p in (
    OrderBags, Functionalize, LowerRoles, RefineChoices, Fold, HoistPrefixes, MergeDuplicates,
    EliminateDead, ParallelizeForks, LowerRegex, Tokenize, LowerSelect, MergeGens, EarlyPrefill,
    SpeculateBranches, Liveness, Schedule)}
"""Every pass, in the order of the default pipeline."""

# Prefixes are merged before folding, which would hide that they are equal, and after it, when
# more are.
DEFAULT_PIPELINE: tuple[str, ...] = (
    "functionalize,lower-roles,tokenize,liveness,schedule",
    "functionalize,lower-roles,refine-choices,fold,eliminate-dead,lower-regex,tokenize,liveness,"
    "schedule",
    "functionalize,lower-roles,hoist-prefixes,refine-choices,fold,hoist-prefixes,merge-duplicates,"
    "eliminate-dead,parallelize-forks,lower-regex,tokenize,lower-select,merge-gens,"
    "early-prefill,speculate-branches,liveness,schedule",
    "order-bags,functionalize,lower-roles,hoist-prefixes,refine-choices,fold,hoist-prefixes,"
    "merge-duplicates,eliminate-dead,parallelize-forks,lower-regex,tokenize,lower-select,merge-gens,"
    "early-prefill,speculate-branches,liveness,schedule",
)
"""Specs by level: only what a plan needs; exact and local; exact and global; and whatever the
program itself permits."""

_NEED_TOKENS = ("lower-roles", "lower-regex", "tokenize", "lower-select", "merge-gens",
                "early-prefill", "speculate-branches", "liveness", "schedule")


def pipeline(level: int, model_free: bool = False) -> str:
    """The default spec of a level 0 to 3; `model_free`: the part that needs no tokenizer and
    keeps chat roles, for backends that take text and messages."""
    spec = DEFAULT_PIPELINE[level]
    if not model_free:
        return spec
    return ",".join(name for name in spec.split(",") if name not in _NEED_TOKENS)
