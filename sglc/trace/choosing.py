"""`max`, `min` and `sorted` of prompt states by a value that only the run knows.

The states themselves exist while tracing; which of them comes first is a number that a host call
gives, and the body goes on once for each number it can be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from sglc.ir.types import INT
from sglc.trace.session import Session
from sglc.trace.symbols import Sym

MAX_OUTCOMES = 8  # more are not explored: the trace breaks for the number


def choose(session: Session, fn: Any, items: Sequence[Any], keys: Sequence[Any],
           reverse: bool) -> Any:
    """`fn(items, key=...)`, where `keys` are the items' keys, some of them run-time values."""
    if fn is not sorted:
        return items[_decided(session, session.host("which", first_of, fn, list(keys)),
                              len(items))]
    number = session.host("which", order_of, list(keys), reverse)
    outcomes = math.factorial(len(items))
    order = _permutation(len(items), _decided(session, number, outcomes))
    return [items[i] for i in order]


def _decided(session: Session, number: Sym, outcomes: int) -> int:
    """A number below `outcomes`, by exploring what it can be."""
    if outcomes > MAX_OUTCOMES:
        return int(session.concrete(number, "which of the states comes first"))
    number.type = INT
    for i in range(outcomes - 1):
        if session.truth(session.compute("eq", number, i)):
            return i
    return outcomes - 1


def first_of(fn: Any, keys: Sequence[Any]) -> int:
    """The index that `fn` (max or min) chooses."""
    return int(fn(range(len(keys)), key=keys.__getitem__))


def order_of(keys: Sequence[Any], reverse: bool) -> int:
    """The number of the permutation that sorts the keys."""
    rest = list(range(len(keys)))
    number = 0
    for i in sorted(rest, key=keys.__getitem__, reverse=reverse):
        number = number * len(rest) + rest.index(i)
        rest.remove(i)
    return number


def _permutation(n: int, number: int) -> list[int]:
    """The inverse of `order_of`."""
    digits = []
    for base in itertools.chain(range(1, n + 1)):
        number, digit = divmod(number, base)
        digits.append(digit)
    rest = list(range(n))
    return [rest.pop(d) for d in reversed(digits)]
