"""Pure Python operations on plain values that programs may do to generated text.

`prompt.compute {fn}` and guards on arguments name them by key; the same function runs in the
eager interpreter (as ordinary Python), while folding constants, and at run time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from sglc.ir import types
from sglc.ir.bags import bag_text
from sglc.ir.types import Type

_TEXT_METHODS: dict[str, Type] = {
    **dict.fromkeys(
        ("strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold",
         "swapcase", "replace", "removeprefix", "removesuffix", "zfill", "ljust", "rjust",
         "center", "expandtabs", "format", "join"), types.TEXT),
    **dict.fromkeys(
        ("startswith", "endswith", "isdigit", "isalpha", "isalnum", "isspace", "isupper",
         "islower", "isnumeric", "isdecimal", "istitle", "isascii", "isidentifier",
         "isprintable"), types.BOOL),
    **dict.fromkeys(("find", "rfind", "index", "rindex", "count"), types.INT),
    **dict.fromkeys(("split", "rsplit", "splitlines", "partition", "rpartition"), types.JSON),
}

_OPERATORS: dict[str, tuple[Callable[..., Any], Type]] = {
    "eq": (operator.eq, types.BOOL), "ne": (operator.ne, types.BOOL),
    "lt": (operator.lt, types.BOOL), "le": (operator.le, types.BOOL),
    "gt": (operator.gt, types.BOOL), "ge": (operator.ge, types.BOOL),
    "not": (operator.not_, types.BOOL), "bool": (bool, types.BOOL),
    "contains": (operator.contains, types.BOOL),
    "add": (operator.add, types.ANY), "sub": (operator.sub, types.ANY),
    "mul": (operator.mul, types.ANY), "truediv": (operator.truediv, types.ANY),
    "floordiv": (operator.floordiv, types.ANY), "mod": (operator.mod, types.ANY),
    "pow": (operator.pow, types.ANY), "neg": (operator.neg, types.ANY),
    "abs": (abs, types.ANY),
    "getitem": (operator.getitem, types.ANY), "slice": (lambda x, a, b, c: x[a:b:c], types.ANY),
    "len": (len, types.INT), "int": (int, types.INT), "float": (float, types.FLOAT),
    "str": (str, types.TEXT), "repr": (repr, types.TEXT),
    "concat": (operator.add, types.TEXT),  # two texts
    "repeat": (operator.mul, types.TEXT),  # a text and an int
    "pick": (lambda test, then, otherwise: then if test else otherwise, types.ANY),
    "pick_equal": (lambda a, b, then, otherwise: then if a == b else otherwise, types.ANY),
    "pick_unequal": (lambda a, b, then, otherwise: then if a != b else otherwise, types.ANY),
    "sorted": (sorted, types.JSON), "max": (max, types.ANY), "min": (min, types.ANY),
    "sum": (sum, types.ANY), "any": (any, types.BOOL), "all": (all, types.BOOL),
    "is_none": (lambda x: x is None, types.BOOL),
    "tuple": (lambda *items: items, types.JSON),
    "set": (lambda *items: set(items), types.JSON),
    "bag.text": (bag_text, types.TEXT),  # counts, separator, parts
    "dict": (lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)), types.JSON),
}


def result_type(fn: str) -> Type:
    """The IR type of a result of `fn`."""
    if fn.startswith("text."):
        return _TEXT_METHODS[fn[5:]]
    return _OPERATORS[fn][1]


def known(fn: str) -> bool:
    return fn in _OPERATORS or (fn.startswith("text.") and fn[5:] in _TEXT_METHODS)


def text_method(name: str) -> bool:
    """Whether `str.<name>` is pure and known here."""
    return name in _TEXT_METHODS


def function(fn: str) -> Callable[..., Any]:
    """The Python function behind a name; raises KeyError for an unknown one."""
    if fn.startswith("text."):
        if fn[5:] not in _TEXT_METHODS:
            raise KeyError(fn)
        return getattr(str, fn[5:])  # type: ignore[no-any-return]
    return _OPERATORS[fn][0]


def run_format(parts: tuple[Any, ...], values: Sequence[Any]) -> str:
    """The text of a `prompt.format`: parts are texts and (index, conversion, spec)."""
    out: list[str] = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
            continue
        index, conversion, spec = part
        value = values[index]
        if conversion == "r":
            value = repr(value)
        elif conversion == "s":
            value = str(value)
        elif conversion == "a":
            value = ascii(value)
        out.append(format(value, spec))
    return "".join(out)
