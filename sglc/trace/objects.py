"""Objects from outside: what operators do with them is Python that is not traced.

A trace holds such an object itself.  `x in seen`, `if counter:` or `f"{config}"` run methods of its
class, on contents that nothing guards, so these are host calls.  Not so where the method is one
that Python has for every object (`==` is identity), or of values that never change.
"""

from __future__ import annotations

import enum
from types import GeneratorType, MappingProxyType
from typing import Any

from sglc.trace.frozen import Frozen

# Their values never change, or the body makes them: its iterators, slices, functions.
_FIXED_MODULES = frozenset({"builtins", "datetime", "decimal", "fractions", "ipaddress", "pathlib",
                            "pathlib._local", "re", "uuid", "zoneinfo"})
_CHANGE = frozenset({list, dict, set, bytearray, MappingProxyType})
_PLAIN = frozenset({str, int, float, bool, bytes, type(None), list, dict, set, frozenset, tuple,
                    range, slice})

EQUAL = ("__eq__", "__ne__")
ORDER = ("__lt__", "__gt__", "__le__", "__ge__")
ITEMS = ("__iter__", "__getitem__", "__next__")
TRUTH = ("__bool__", "__len__")
TEXT = ("__format__", "__str__", "__repr__")
NUMBER = ("__int__", "__float__", "__index__", "__abs__", "__round__", "__add__", "__radd__")
ANYTHING = (*EQUAL, *ORDER, *ITEMS, *TRUTH, *TEXT, *NUMBER)


def acts(value: Any, *names: str) -> bool:
    """Whether one of these special methods of a value is the user's code, or looks at what may
    change."""
    kind = type(value)
    if kind in _PLAIN or issubclass(kind, (enum.Enum, type)):
        return False
    if kind is GeneratorType:  # one of the body's own has a frame of rewritten code
        frame = value.gi_frame
        return frame is not None and "__sglc__" not in frame.f_globals
    for name in names:
        owner = next((c for c in kind.__mro__ if name in vars(c)), None)
        if owner is not None and (owner in _CHANGE or not _fixed(owner)):
            return True
    return False


def acts_inside(value: Any, *names: str, depth: int = 4) -> bool:
    """The same of a value or of what a plain container holds."""
    if isinstance(value, Frozen):
        return depth > 0 and any(acts_inside(v, *names, depth=depth - 1) for v in value.elements)
    if isinstance(value, tuple) or type(value) in (list, set, frozenset):
        return acts(value, *names) or (
            depth > 0 and any(acts_inside(v, *names, depth=depth - 1) for v in value))
    if type(value) is dict:
        return depth > 0 and any(acts_inside(v, *names, depth=depth - 1)
                                 for pair in value.items() for v in pair)
    return acts(value, *names)


def has_own(value: Any, name: str) -> bool:
    """Whether an attribute is found without asking the object's `__getattr__`."""
    return name in getattr(value, "__dict__", ()) or any(name in vars(c)
                                                         for c in type(value).__mro__)


def _fixed(owner: type) -> bool:
    module = owner.__module__
    return module in _FIXED_MODULES or (
        module.startswith("sglc.") and not module.startswith("sglc.workloads."))


def item_of(value: Any, key: Any) -> Any:
    """`value[key]`, which may do anything."""
    return value[key]
