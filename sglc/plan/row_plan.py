"""What `dry_run.py` finds of a row: its model calls, and what its prompts may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sglc.ir.module import Op
from sglc.plan.draft_calls import Written
from sglc.plan.drafts import Draft
from sglc.plan.prefix_tree import Node, Span


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A model call.  number: in program order; needs: calls that end before it can start;
    spans: what its requests read and write; base: the end of its prompt, of a select; written:
    what it decodes; chance: that it happens at all; rank: its place in the plan; ahead: it only
    makes KV for a later call; op: what asks for it."""

    number: int
    needs: frozenset[int]
    spans: tuple[Span, ...]
    base: Node | None
    written: Written
    chance: float
    rank: int
    ahead: bool = False
    op: Op | None = field(default=None, compare=False)


@dataclass(slots=True)
class RowPlan:
    """The calls of a row.  complete: whether these are all that there can be; sure: whether all
    happen."""

    calls: list[PlannedCall] = field(default_factory=list)
    complete: bool = True
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Ways:
    """What a prompt may be, with how likely."""

    ways: tuple[tuple[float, Draft], ...]

    def __iter__(self) -> Iterator[tuple[float, Draft]]:
        return iter(self.ways)
