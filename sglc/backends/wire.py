"""Plain Python values as JSON and back, nothing lost: tuples, numbers that JSON has not, keys that
are no texts.

It is how arguments and results of programs travel between a client and a server.
"""

from __future__ import annotations

import math
from typing import Any

_MARKS = ("$tuple", "$float", "$dict", "$set")
_DEPTH = 64


class NotPlain(TypeError):
    """A value that is not plain data."""


def encode(value: Any, depth: int = _DEPTH) -> Any:
    """JSON data for None, bool, int, float, str, lists, tuples, sets and dicts of these.

    Raises NotPlain for anything else, and for integers beyond 64 bits.
    """
    if value is None or isinstance(value, bool):
        return value
    if depth == 0:
        raise NotPlain("the value is nested too deeply")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise NotPlain("an integer has more than 64 bits")
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if type(value) is list:
        return [encode(v, depth - 1) for v in value]
    if type(value) is tuple:
        return {"$tuple": [encode(v, depth - 1) for v in value]}
    if type(value) in (set, frozenset):
        return {"$set": [encode(v, depth - 1) for v in sorted(value, key=repr)]}
    if type(value) is dict:
        if all(type(k) is str for k in value) and not any(m in value for m in _MARKS):
            return {k: encode(v, depth - 1) for k, v in value.items()}
        return {"$dict": [[encode(k, depth - 1), encode(v, depth - 1)]
                          for k, v in value.items()]}
    raise NotPlain(f"a {type(value).__name__} is not plain data")


def decode(data: Any, depth: int = _DEPTH) -> Any:
    """What `encode` was given.  Raises NotPlain for data of another form."""
    if depth < 0:
        raise NotPlain("the value is nested too deeply")
    if isinstance(data, list):
        return [decode(v, depth - 1) for v in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        (mark, inner), = data.items()
        if mark in _MARKS:
            return _marked(mark, inner, depth - 1)
    return {k: decode(v, depth - 1) for k, v in data.items()}


def _marked(mark: str, inner: Any, depth: int) -> Any:
    try:
        if mark == "$float":
            if inner not in ("inf", "-inf", "nan"):
                raise NotPlain("a $float is inf, -inf or nan")
            return float(inner)
        if not isinstance(inner, list):
            raise NotPlain(f"a {mark} holds a list")
        if mark == "$dict":
            return {decode(k, depth): decode(v, depth) for k, v in inner}
        items = [decode(v, depth) for v in inner]
        return tuple(items) if mark == "$tuple" else set(items)
    except (TypeError, ValueError) as error:
        raise NotPlain(f"a {mark} is malformed") from error
