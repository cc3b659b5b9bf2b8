"""Methods that a body takes without calling them, and views of its dicts: `key=counts.get`,
`map(found.append, words)`, `map(str, table.values())`.

What such a method is bound to stands for a value of the run, so a host call gets the method of
that value instead: a container of the body is handed over first, one from outside is read there.
"""

from __future__ import annotations

import gc
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Any

from sglc.trace.frozen import Frozen, HostMethod
from sglc.trace.symbols import Method, is_symbolic

_LOOKS = frozenset({
    "get", "index", "count", "keys", "values", "items", "copy", "union", "intersection",
    "difference", "symmetric_difference", "issubset", "issuperset", "isdisjoint", "__contains__",
    "__getitem__", "__len__"})

VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


def owner_of(value: Any) -> Any:
    """What a method is bound to, or a view is of, if the trace made that: a container of the
    body, a symbol or a prompt state; None for anything else."""
    if type(value) in VIEWS:
        return next((d for d in gc.get_referents(value) if type(d) is dict), None)
    if isinstance(value, (Method, HostMethod)):
        return value.receiver
    if not isinstance(value, (BuiltinMethodType, MethodType, MethodWrapperType)):
        return None
    owner = value.__self__
    mine = type(owner) in (list, dict, set) or is_symbolic(owner) or getattr(
        type(owner), "__sglc_traced__", False)
    return owner if mine else None


def name_of(method: Any) -> str:
    """The name of a bound method, or of the one that gives a view, on what its owner stands for."""
    if type(method) in VIEWS:
        return VIEWS[type(method)]
    if isinstance(method, (Method, HostMethod)):
        return method.name
    name: str = method.__name__
    return name.removeprefix("_") if isinstance(method.__self__, Frozen) else name


def only_looks(method: Any) -> bool:
    """Whether a method of a container leaves it as it is."""
    return name_of(method) in _LOOKS
