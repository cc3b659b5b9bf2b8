"""What rendering an untrusted template may cost.

A budget of units: one for each character or item of a value that is made, `STEP` for each loop
step and call.  This module does not know what is charged when; `sandbox.py` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError
from jinja2.runtime import LoopContext

STEP = 10
_MAX_BITS = 1 << 12


class Refused(TemplateError):
    """The template itself called `raise_exception`; the message is its own."""


class TooMuchWork(TemplateError):
    """A template exceeded its budget, or asked for something unbounded."""


class Budget:
    """What one render may still spend; every method raises `TooMuchWork` beyond that."""

    __slots__ = ("left",)

    def __init__(self, work: int) -> None:
        self.left = work

    def spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise TooMuchWork("the template does too much work")

    def size(self, value: Any) -> int:
        """Spend, and return, the size of `value`: all it contains, as often as it does."""
        before = self.left
        if isinstance(value, str):
            self.spend(1 + len(value))
        elif isinstance(value, dict):
            self.spend(1)
            for key, item in value.items():
                self.size(key)
                self.size(item)
        elif isinstance(value, list | tuple | set | frozenset):
            self.spend(1)
            for item in value:
                self.size(item)
        elif isinstance(value, range):
            self.spend(1 + len(value))
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise TooMuchWork("the template makes too large a number")
        else:
            self.spend(1)
        return before - self.left

    def made(self, value: Any) -> Any:
        """`value`, paid for; an iterator pays item by item."""
        if type(value) is str:  # nearly all that templates make: the same as below, faster
            self.spend(1 + len(value))
            return value
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self.items(value)
        self.size(value)
        return value

    def items(self, values: Iterator[Any]) -> Iterator[Any]:
        """The items, each paid for as it is taken."""
        for value in values:
            self.spend(STEP)
            self.size(value)
            yield value
