"""Pure operations on values of which some are not known: what stays known, and what bounds hold.

Knows the operations of `ir/compute.py` by name; no prompts and no calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from sglc.ir import compute
from sglc.plan.drafts import UNBOUNDED, Open, Piece, joined
from sglc.tokens.text import utf8


class Failed:
    """Stands for a value whose computation raises: what needs it does not happen."""

    def __repr__(self) -> str:
        return "FAILED"


FAILED = Failed()

_EXPECTED = 16.0  # tokens of a text about which nothing is known
_NO_LONGER = frozenset(("str", "text.strip", "text.lstrip", "text.rstrip", "text.removeprefix",
                        "text.removesuffix"))
_RECASED = frozenset(f"text.{m}" for m in ("lower", "upper", "title", "capitalize", "casefold",
                                           "swapcase"))
_GROWTH = 6  # bytes that a byte of text becomes at most in another case


def unknown(key: Hashable, expected: float = _EXPECTED, most: int = UNBOUNDED) -> Open:
    """A value about which no more is known."""
    return Open((Piece(key, expected, most),))


def is_known(value: Any) -> bool:
    """Whether nothing in the value is open."""
    if isinstance(value, (list, tuple)):
        return all(is_known(v) for v in value)
    return not isinstance(value, Open)


def computed(fn: str, values: Sequence[Any], key: Hashable) -> Any:
    """What `fn` gives; `key` names the result where it is not known."""
    if any(v is FAILED for v in values):
        return FAILED
    if all(map(is_known, values)):
        try:
            return compute.function(fn)(*values)
        except Exception:
            return FAILED
    if fn in ("concat", "add") and all(isinstance(v, (str, Open)) for v in values):
        return joined(values)
    if fn == "getitem" and isinstance(values[0], (list, tuple)) and type(values[1]) is int:
        try:
            return values[0][values[1]]
        except IndexError:
            return FAILED
    if fn == "tuple":
        return tuple(values)
    first = values[0] if isinstance(values[0], Open) else None
    if fn in _NO_LONGER and first is not None and all(map(is_known, values[1:])):
        return first if fn == "str" else unknown(key, first.expected, first.most)
    if fn in _RECASED and first is not None:
        return unknown(key, first.expected, min(_GROWTH * first.most, UNBOUNDED))
    if fn == "slice" and first is not None and all(map(is_known, values[1:])):
        return _sliced(first, values[1], values[2], key)
    if fn in ("pick", "pick_equal", "pick_unequal"):
        return either(values[-2:], key)
    if fn == "bag.text" and isinstance(values[1], str) and all(
            isinstance(v, (str, Open)) for v in values[2:]):
        whole = joined([p for v in values[2:] for p in (values[1], v)])
        assert isinstance(whole, Open)
        return unknown(key, whole.expected, whole.most)
    return unknown(key)


def _sliced(text: Open, start: Any, stop: Any, key: Hashable) -> Open:
    """A slice of a text: at most so many characters, of four bytes each."""
    most = text.most
    characters = None
    if type(start) is int and start < 0 and stop is None:
        characters = -start
    elif ((start is None or (type(start) is int and start >= 0))
          and type(stop) is int and stop >= 0):
        characters = max(0, stop - (start or 0))
    if characters is None:
        return unknown(key, text.expected, most)
    return unknown(key, min(text.expected, characters / 4), min(most, 4 * characters))


def either(values: Sequence[Any], key: Hashable) -> Any:
    """One of several values."""
    first = values[0]
    if all(v is first for v in values):
        return first
    if is_known(list(values)) and all(type(v) is type(first) and v == first for v in values):
        return first
    texts = [v for v in values if isinstance(v, (str, Open))]
    if len(texts) < len(values):
        return unknown(key)
    expected = [v.expected if isinstance(v, Open) else len(v) / 4 for v in texts]
    most = [v.most if isinstance(v, Open) else len(utf8(v)) for v in texts]
    return unknown(key, sum(expected) / len(expected), max(most))


def formatted(parts: Sequence[Any], values: Sequence[Any], key: Hashable) -> Any:
    """The text of a `prompt.format`."""
    if any(v is FAILED for v in values):
        return FAILED
    out: list[str | Open] = []
    try:
        for i, part in enumerate(parts):
            if isinstance(part, str):
                out.append(part)
                continue
            index, conversion, spec = part
            value = values[index]
            if is_known(value):
                out.append(compute.run_format((part,), values))
            elif isinstance(value, Open) and conversion in ("", None, "s") and not spec:
                out.append(value)
            else:
                out.append(unknown((key, i)))
    except Exception:
        return FAILED
    return joined(out)
