"""Functions of Python's library that go through prompt states: `map`, `filter`, `reduce`, `chain`.

The states exist while tracing, and what is called for each is traced, so these are Python's own
functions over hooks; they stay as lazy as they are.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import TYPE_CHECKING, Any

from sglc.trace.primitives import makes_prompts

if TYPE_CHECKING:
    from sglc.trace.hooks import Hooks

_LAZY = (enumerate, filter, map, reversed, zip)  # what the body may have made of states


def holds_state(value: Any, depth: int = 4) -> bool:
    """Whether a value is a prompt state, or a plain container with one."""
    if type(value) in (list, tuple, dict):
        items = value.values() if type(value) is dict else value
        return depth > 0 and any(holds_state(v, depth - 1) for v in items)
    return bool(getattr(type(value), "__sglc_traced__", False))


def without_states(value: Any, stand_ins: dict[int, object]) -> Any:
    """A key to sort by: the states in its tuples, which Python cannot order, as objects that it
    cannot order either."""
    if getattr(type(value), "__sglc_traced__", False):
        return stand_ins.setdefault(id(value), object())
    if type(value) in (list, tuple):
        return type(value)(without_states(v, stand_ins) for v in value)
    return value


def through_states(hooks: Hooks, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call of one of these functions, if it goes through states or calls programs;
    NotImplemented for any other call."""
    if kwargs or not args or not (
            makes_prompts(args[0]) or any(holds_state(a) or isinstance(a, _LAZY) for a in args)):
        return NotImplemented
    if fn is itertools.chain:
        return _kept(hooks, map(_same, itertools.chain(*map(hooks.iterate, args))))
    if len(args) < 2:
        return NotImplemented
    if fn is functools.reduce:
        return functools.reduce(lambda a, b: hooks.call(args[0], a, b), hooks.iterate(args[1]),
                                *args[2:])
    sources = [hooks.iterate(a) for a in args[1:]]
    if fn is map:
        return _kept(hooks, map(lambda *items: hooks.call(args[0], *items), *sources))
    return _kept(hooks, filter(
        lambda item: hooks.truth(item if args[0] is None else hooks.call(args[0], item)),
        *sources))


THROUGH = frozenset((filter, functools.reduce, itertools.chain, map))
"""The functions that `through_states` knows."""


def picked(hooks: Hooks, getter: operator.itemgetter[Any], value: Any) -> Any:
    """What an itemgetter gives of a state, or of what holds one."""
    found = tuple(hooks.item(value, key) for key in getter.__reduce__()[1])
    return found[0] if len(found) == 1 else found


def _kept(hooks: Hooks, iterator: Any) -> Any:
    hooks.session.iterators.append(iterator)
    return iterator


def _same(value: Any) -> Any:
    return value
