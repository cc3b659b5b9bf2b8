"""The protocol between constrained decoding and the engine, whatever compiles the constraint."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Constraint(Protocol):
    """A set of allowed texts over one tokenizer.  Immutable; states are small hashable values."""

    def start(self) -> Any:
        """The state before the first token."""

    def mask(self, state: Any) -> np.ndarray:
        """Allowed tokens as packed int32 words (bit `t & 31` of word `t >> 5`), length
        `ceil(vocab_size / 32)`.  EOS ids are set exactly where the text may end.  Read-only."""

    def advance(self, state: Any, token_id: int) -> Any | None:
        """The state after the token; None where it is not allowed.  EOS: the same state if
        accepting."""

    def jump(self, state: Any) -> bytes:
        """The longest text that every accepted continuation starts with (may be empty)."""

    def accepting(self, state: Any) -> bool:
        """Whether the text so far is complete."""

    def max_tokens(self) -> int | None:
        """A bound on the tokens of any accepted text, None if unbounded."""
