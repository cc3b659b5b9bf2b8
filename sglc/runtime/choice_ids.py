"""The ids of a select's choices behind the prompts that it is asked for, each found once; and of
what follows each choice, where that is constant.

They depend on the open text before them alone, so they are remembered by it, and where the
compiler knows that text (the pass lower-select) they are there from the beginning.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from sglc.tokens.branches import Branches, branches
from sglc.tokens.prompt import Prompt
from sglc.tokens.tokenizer import Tokenizer

KEPT = 64  # open texts whose choices are remembered


def with_pieces(prompt: Prompt, pieces: Sequence[str | int]) -> Prompt:
    """A prompt with texts and control tokens added."""
    for piece in pieces:
        prompt = prompt.append(piece) if isinstance(piece, str) else prompt.special(piece)
    return prompt


class ChoiceIds:
    """Fixed choices of one tokenizer, and their ids behind what they were asked for.

    then: choices, each with texts and control tokens that follow it.
    """

    __slots__ = ("_known", "_rides", "choices", "then", "tokenizer")

    def __init__(self, tokenizer: Tokenizer, choices: Sequence[str],
                 then: Sequence[Sequence[str | int]] = ()) -> None:
        self.tokenizer = tokenizer
        self.choices = tuple(choices)
        self.then = tuple(then)
        self._known: dict[tuple[str, bool], Branches] = {}
        self._rides: dict[tuple[str, bool], tuple[array[int], ...]] = {}

    def learn(self, tail: str, first: bool, found: Branches) -> None:
        """Take ids that were computed before."""
        self._known[tail, first] = found

    @property
    def tokens(self) -> int | None:
        """About how many tokens they take behind a prompt; None if they were never encoded."""
        found = next(iter(self._known.values()), None)
        return None if found is None else found.read + len(found.shared) + 1

    def behind(self, prompt: Prompt) -> tuple[
            array[int], tuple[array[int], ...], tuple[array[int], ...]]:
        """The ids before the choices, those of each choice, and of choices with what follows
        them."""
        ids, tail, first = prompt.ids, prompt.tail, prompt.first
        found = self._known.get((tail, first))
        if found is None and tail and self.tokenizer.can_cut:
            cut = self.tokenizer.encode_run(tail, first)
            if cut.ids:
                ids, tail, first = ids + cut.ids, cut.held, False
                found = self._known.get((tail, first))
        if found is None:
            found = branches(self.tokenizer, self.choices, tail, first)
            if len(self._known) < KEPT:
                self._known[tail, first] = found
        return ids + found.shared, found.rows, self._ridden(tail, first, found.shared)

    def _ridden(self, tail: str, first: bool, shared: array[int]) -> tuple[array[int], ...]:
        """The ids of choices with what follows, behind the shared ones."""
        if not self.then:
            return ()
        rides = self._rides.get((tail, first))
        if rides is None:
            start = Prompt(self.tokenizer, array("q"), tail, first, None, None)
            n = len(shared)
            rows = [with_pieces(start, pieces).token_ids() for pieces in self.then]
            rides = tuple([row[n:] for row in rows if row[:n] == shared])
            if len(self._rides) < KEPT:
                self._rides[tail, first] = rides
        return rides
