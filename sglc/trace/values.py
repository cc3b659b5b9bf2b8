"""What a value is to the trace: a part of it, known to the run only, or Python's own.

Knows what values look like, not what is done with them.
"""

from __future__ import annotations

import re
from typing import Any

from sglc.trace.frozen import Frozen
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Sym

CONTAINERS = (list, dict, tuple, set, frozenset, str, int, float, bool, range, bytes,
              type(None), re.Match)


def traced(value: Any) -> bool:
    """Whether a value belongs to the trace (a state, a group of states, ...)."""
    return getattr(type(value), "__sglc_traced__", False)


def outside_set(value: Any) -> bool:
    """Whether a value is a set from outside: what is done with it is done with the real one."""
    return isinstance(value, Frozen) and value.kind is set


def run_time_symbol(value: Any) -> bool:
    """Whether a value is a symbol that depends on the model or a host call."""
    return isinstance(value, Sym) and value.recipe is None


def run_time(value: Any, depth: int = 6) -> bool:
    """Whether a value depends on the model or a host call, looking into plain containers."""
    if isinstance(value, Sym):
        return value.recipe is None
    if isinstance(value, Seq):
        return value.whole is None or value.whole.recipe is None
    if isinstance(value, Frozen):
        return any(run_time(v, depth - 1) for v in value.elements) if depth else True
    if type(value) in (list, tuple, set, frozenset):
        return any(run_time(v, depth - 1) for v in value) if depth else True
    if type(value) is dict:
        return any(run_time(v, depth - 1) for p in value.items() for v in p) if depth else True
    return False


def kind_of(value: Any) -> str:
    """What a value is, in the words of messages."""
    if isinstance(value, Frozen):
        return value.what
    if isinstance(value, Sym):
        return "a value that only the run knows"
    return f"a {type(value).__name__}"
