"""Choices as token ids behind a prompt: what they share with it, and what each adds.

What a choice adds depends on the open text before it, and on that alone.  Choices are scored from
the first position where any of {the prompt, the prompt with a choice} differ.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from sglc.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Branches:
    """The ids that all choices begin with, behind a prompt's last border or stable cut, and what
    each goes on with."""

    shared: array[int]
    rows: tuple[array[int], ...]

    @property
    def read(self) -> int:
        """Tokens that scoring the rows must read, those that several begin with once (the last
        of a row is only scored)."""
        return len({row[:n].tobytes() for row in self.rows for n in range(1, len(row))})


def branches(tokenizer: Tokenizer, choices: Sequence[str], tail: str, first: bool) -> Branches:
    """The choices behind the open text `tail`.  first: it opens the prompt."""
    plain = array("q", tokenizer.encode(tail, first) if tail else ())
    rows = [array("q", tokenizer.encode(tail + choice, first)) for choice in choices]
    n = common_prefix([plain, *rows])
    return Branches(plain[:n], tuple([row[n:] for row in rows]))


def common_prefix(rows: Sequence[array[int]]) -> int:
    """The length of the longest common prefix of id arrays."""
    n = min(len(r) for r in rows)
    first = rows[0]
    for row in rows[1:]:
        if first[:n] == row[:n]:
            continue
        n = next(i for i in range(n) if first[i] != row[i])
    return n
