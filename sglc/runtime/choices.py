"""Requests that score several choices: one sequence a choice, all behind the same ids, and one
answer.

The first sequence goes ahead; the others are opened when the ids before the choices are read, so
that they take no memory before and can be admitted together.  This module decides nothing about
steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sglc.runtime.request import Request, Result

if TYPE_CHECKING:
    from sglc.runtime.sequence import Sequence


class Choices:
    """The sequences of one request.

    make: opens the sequence of a choice, by its number.  lead: the choice that goes ahead, one
    of the longest.
    """

    __slots__ = ("_closed", "_make", "_open", "_results", "lead", "request")

    def __init__(self, request: Request, make: Callable[[int], Sequence]) -> None:
        self.request = request
        self.lead = max(range(len(request.choices)), key=lambda i: len(request.choices[i]))
        self._make: Callable[[int], Sequence] | None = make
        self._results: dict[int, Result] = {}
        self._open = 1
        self._closed = False

    def others(self, read: int) -> list[Sequence]:
        """The sequences of the other choices, once, when so many of the ids are read."""
        make = self._make
        if make is None or read < len(self.request.ids):
            return []
        self._make = None
        rest = [make(i) for i in range(len(self.request.choices)) if i != self.lead]
        self._open += len(rest)
        return rest

    @property
    def last(self) -> bool:
        """Whether one sequence is left."""
        return self._open == 1

    def ended(self, number: int, result: Result) -> Result | None:
        """Take the result of a choice; the answer to the request when it is there."""
        self._results[number] = result
        self._open -= 1
        if self._closed or (self._open and result.error is None):
            return None
        if result.error is None and self._make is not None:
            raise AssertionError("a request has ended with choices that were never opened")
        self._make, self._closed = None, True
        failed = next((r for r in self._results.values() if r.error is not None), None)
        if failed is not None:
            return failed
        results = [self._results[i] for i in range(len(self._results))]
        lead = results[self.lead]
        return Result(choices=tuple([r.logprobs for r in results]),
                      prompt_tokens=len(self.request.ids), cached_tokens=lead.cached_tokens,
                      output_tokens=0)
