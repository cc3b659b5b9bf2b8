"""What a scheduling policy decides.  The scheduler does the rest, the same for all.

A policy never changes what is computed for a request, only when, beside what, and how much of
it again: ids and text are the same under every policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sglc.runtime.sequence import Sequence

if TYPE_CHECKING:
    from sglc.runtime.radix import RadixTree


class Memory(Protocol):
    """What a policy sees of the scheduler."""

    tree: RadixTree
    running: list[Sequence]

    def queue(self) -> list[Sequence]:
        """The sequences that wait, in order."""

    @property
    def available(self) -> int:
        """Slots that can be had: free ones, and unlocked KV."""


class Policy(Protocol):
    """The decisions of one scheduler.  Methods are called under its lock, and may keep state.

    grain: tokens that are shared as one (a block).
    at_issue: whether tokens can be shared as soon as they are issued, in the same step too; else
        when their step is over.
    exact: whether a sequence takes whatever is known, before each chunk, hidden states included;
        else it looks once, when it starts, and computes at least the last token it reads.
    pins: whether requests' pins are honoured.
    patient: whether nothing starts in a step that sent a sequence back to wait.
    """

    name: str
    grain: int
    at_issue: bool
    exact: bool
    pins: bool
    patient: bool

    def place(self, seq: Sequence, serial: int) -> tuple[Any, ...]:
        """Where a sequence waits: smaller goes first.  `serial`: how many came to wait before,
        those sent back included."""

    def reorder(self, memory: Memory) -> list[tuple[Any, ...]] | None:
        """New places for all that wait, in the order of `memory.queue()`; None: as they are."""

    def turns(self, prefilling: list[Sequence]) -> list[Sequence]:
        """The order in which running sequences get chunks; given in order of their start."""

    def begin(self, memory: Memory) -> None:
        """A step's decodes and running chunks are set; sequences may start now."""

    def fits(self, seq: Sequence, memory: Memory, budget: int) -> bool:
        """Whether a sequence may start, its known prefix locked, beside others that run.
        `budget`: tokens left in the step."""

    def started(self, seq: Sequence, known: int) -> None:
        """It started, with `known` tokens of KV; its first chunk is issued."""

    def victim(self, running: list[Sequence]) -> Sequence:
        """Who is sent back to wait when slots run out; given in order of their start."""

    def retracted(self, seq: Sequence, running: list[Sequence]) -> None:
        """`seq` was sent back; `running` go on."""

    def left(self, seq: Sequence) -> None:
        """It runs no more: it is `finished`, or will start over.  Its page table is as it was."""
