"""`max`, `min` and `sorted` of prompt states, or of tuples with them, by values of the run.

The states themselves exist while tracing; which of them comes first is a number that a host call
gives, and the body goes on once for each number it can be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sglc.ir.types import INT
from sglc.trace.of_states import holds_state, without_states
from sglc.trace.session import Session
from sglc.trace.symbols import Sym, is_symbolic
from sglc.trace.values import run_time, traced

if TYPE_CHECKING:
    from sglc.trace.pure_calls import PureCalls

MAX_OUTCOMES = 8  # more are not explored: the trace breaks for the number


def chosen(hooks: PureCalls, fn: Any, args: tuple[Any, ...],
           kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """`fn(*args, **kwargs)`, for `max`, `min` or `sorted` of what holds states; None for anything
    else.  And the arguments to go on with then: an iterator was begun."""
    if set(kwargs) - {"key", "reverse", "default"}:
        return None, args
    source: Iterable[Any] = args
    if len(args) == 1:
        source, args = _begun(hooks, args[0])
    if not source or (not isinstance(source, Iterator) and not any(map(holds_state, source))):
        return None, args
    key = kwargs.get("key")
    items: list[Any] = []
    keys: list[Any] = []
    for item in source:
        items.append(item)
        if key is not None and fn is not sorted:
            keys.append(hooks.call(key, item))
    if key is None:
        keys = items
    elif fn is sorted:
        keys = [hooks.call(key, item) for item in items]
    if any(map(traced, keys)):
        return None, (items,)
    stand_ins: dict[int, object] = {}
    keys = [without_states(k, stand_ins) for k in keys]
    reverse = bool(hooks.truth(kwargs.get("reverse", False)))
    if not run_time(keys):
        keys = [hooks._concrete(k, "a key") for k in keys]
        order = {"reverse": reverse} if fn is sorted else {}
        found = fn(range(len(items)), key=keys.__getitem__, **order)
        return [items[i] for i in found] if fn is sorted else items[found], args
    return choose(hooks.session, fn, items, keys, reverse), args


def _begun(hooks: PureCalls, given: Any) -> tuple[Iterable[Any], tuple[Any, ...]]:
    """What to go through, if it holds states (of an iterator, its first item tells); nothing
    else.  And the one argument in any case."""
    if isinstance(given, Iterator) and not is_symbolic(given):
        first = next(given, _NOTHING)
        if first is _NOTHING:
            return (), ([],)
        rest = map(_same, itertools.chain((first,), given))
        return (hooks._rounds(rest) if holds_state(first) else ()), (rest,)
    if traced(given) or type(given) in (list, tuple):
        return list(hooks.iterate(given)), (given,)
    return (), (given,)


_NOTHING = object()


def _same(value: Any) -> Any:
    return value


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
