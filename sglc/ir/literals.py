"""The plain data that literal operands and attributes hold: compared, checked, written, read back.

Knows nothing of operations or programs.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_NESTED = 64
"""How deep lists may nest: a bound that keeps every recursion over literals safe."""

SCALARS: frozenset[type] = frozenset((str, int, float, bool, type(None)))

_encode = json.JSONEncoder(ensure_ascii=False).encode
# Characters that JSON leaves raw but that split lines, reorder text or cannot be stored as UTF-8.
_UNSAFE = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{4})\}|(.))")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# Python refuses to convert longer integers to and from decimal; hexadecimal has no such limit.
_DECIMAL_BITS = 8192


def is_plain(value: Any, deep: int = MAX_NESTED) -> bool:
    """Whether `value` is None, bool, int, float, str or a tuple of these, exactly typed."""
    if type(value) in SCALARS:
        return True
    return type(value) is tuple and deep > 0 and all(is_plain(v, deep - 1) for v in value)


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are indistinguishable: 1, 1.0 and True differ, nan equals nan."""
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if type(a) is float:
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return a == b and math.copysign(1.0, a) == math.copysign(1.0, b)
    return bool(a == b)


def quote(text: str) -> str:
    """A JSON string on one line, unicode readable.

    A surrogate is written `\\u{d800}`, which JSON lacks: two in a row would otherwise be read
    back as one character.
    """
    return _UNSAFE.sub(_escape, _encode(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\u{{{code:04x}}}" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


def unquote(token: str) -> str:
    """The text of what `quote` wrote, or of any JSON string."""
    body = token[1:-1]
    return _ESCAPE.sub(_unescape, body) if "\\" in body else body


def _unescape(match: re.Match[str]) -> str:
    high, low, unit, surrogate, short = match.groups()
    if short is not None:
        return _SHORT.get(short, short)
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))
    return chr(int(unit or surrogate, 16))


def write(value: Any, elide: int | None = None) -> str:
    """The text form of a plain value.

    elide: show only the ends of longer texts, with the length; such text does not parse.
    Values that are not plain come out as `<repr>`, for error messages.
    """
    kind = type(value)
    if kind is str:
        if elide is not None and len(value) > max(elide, 8):
            half = max(elide, 8) // 2
            ends = quote(value[:half])[:-1] + "…" + quote(value[-half:])[1:]
            return f"{ends}⟨{len(value)} chars⟩"
        return quote(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value) if value.bit_length() < _DECIMAL_BITS else hex(value)
    if kind is float:
        return repr(value)
    if kind is tuple:
        return "[" + ", ".join([write(v, elide) for v in value]) + "]"
    return f"<{value!r}>"


def read_int(token: str) -> int:
    """The integer of a decimal or hexadecimal token; ValueError if it has too many digits."""
    return int(token, 16 if "x" in token else 10)
