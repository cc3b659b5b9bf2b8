"""What an engine did, request by request, for reports.

A recorder only looks on: it decides nothing, and keeps ids, not text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sglc.plan.lower_bound import FinalSequence, LowerBound, lower_bound

if TYPE_CHECKING:
    from sglc.runtime.sequence import Sequence


@dataclass(slots=True)
class Recording:
    """A record of the requests that ended while it was on (see `EngineCore.record`).

    sequences: one a request, in the order of their ends; requests that never ran have no KV.
    kv_peak: the most KV slots that running sequences held in one step, in tokens (cached ones
    that nothing reads are not counted).
    """

    sequences: list[FinalSequence] = field(default_factory=list)

    def left(self, seq: Sequence) -> None:
        """A sequence has ended."""
        self.sequences.append(FinalSequence(seq.ids, seq.pos, seq.prompt_len))

    def lower_bound(self) -> LowerBound:
        """The least prefill that these sequences needed."""
        return lower_bound(self.sequences)
