"""How the rows of a batch draw their tokens: what `sample` needs, a tensor a property.

The meaning of every number is that of the request's sampling parameters.  Everything stays on
the device from step to step; a row is changed when its request is.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

COUNT_MASK = 0x3FFFFFFF
IN_PROMPT = 1 << 30


@dataclass(frozen=True, slots=True)
class Draws:
    """Of R rows.

    temperature: float64 (R,); 0 takes the best token.
    key: int64 (R,), the bits of the 64-bit sampling key.  index: int64 (R,), tokens drawn so far.
    top_k: int32 (R,), 0 for all.  top_p, min_p: float64 (R,); 1 and 0 for none.  All three are
        ignored where the temperature is 0.
    penalties: float64 (R, 3): repetition (1 for none), frequency, presence.  None if no row has
        any.
    tally: int32 (P, V): for a penalised row and a token how often it was generated, and
        `IN_PROMPT` if the prompt counts as well and has it.
    tally_row: int32 (R,), the row of `tally`, -1 for none.
    filtered: whether some row has top_k, top_p or min_p.
    """

    temperature: Tensor
    key: Tensor
    index: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    penalties: Tensor | None = None
    tally: Tensor | None = None
    tally_row: Tensor | None = None
    filtered: bool = False
