"""JSON strings: from the strings that are meant to the texts that stand for them.

Fixed texts are written as `json.dumps(..., ensure_ascii=False)` writes them.  In free strings any
character may also be escaped.  In strings with a pattern or format, characters are written as
themselves, and as the short escape or `\\u00XX` where JSON does not allow that.
"""

from __future__ import annotations

import json
from typing import Any

from sglc.grammar.charset import CharSet
from sglc.grammar.syntax import (
    EMPTY,
    NOTHING,
    Alternative,
    Chars,
    Concat,
    Machine,
    Node,
    Repeat,
    Words,
    alternative,
    chars,
    concat,
    repeat,
    words,
)

_SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n",
          "\r": "\\r", "\t": "\\t"}
_ESCAPED = CharSet([(0, 31), (0x22, 0x22), (0x5C, 0x5C)])  # what JSON does not allow as itself
_PLAIN = chars(_ESCAPED.negate())


def _letters(text: str) -> Node:
    return chars(CharSet((ord(c), ord(c)) for c in text))


_HEX = _letters("0123456789abcdefABCDEF")
# A code that is no surrogate, or a pair of surrogates: each is one character.
_CODE = alternative([
    concat(["\\u", _letters("0123456789abcefABCEF"), repeat(_HEX, 3, 3)]),
    concat(["\\u", _letters("dD"), _letters("01234567"), _HEX, _HEX]),
    concat(["\\u", _letters("dD"), _letters("89abAB"), _HEX, _HEX,
            "\\u", _letters("dD"), _letters("cdefCDEF"), _HEX, _HEX])])
CHARACTER = alternative([_PLAIN, words(_SHORT.values()), _CODE])
"""Any one character of a JSON string, as any of the texts that stand for it."""


def fixed(value: Any, separators: tuple[str, str]) -> str:
    """The one text that stands for a value."""
    return json.dumps(value, ensure_ascii=False, separators=separators)


def free_string(least: int, most: int | None) -> Node:
    """Any string of that many characters, with any escapes."""
    return concat(['"', repeat(CHARACTER, least, most), '"'])


def string_of(meant: Node) -> Node:
    """The strings of `meant` (a tree without anchors) as JSON."""
    return concat(['"', _written(meant, {}), '"'])


def _written(node: Node, known: dict[CharSet, Node]) -> Node:
    if isinstance(node, Chars):
        found = known.get(node.charset)
        if found is None:
            found = known[node.charset] = _character(node.charset)
        return found
    if isinstance(node, Words):
        return words(json.dumps(w, ensure_ascii=False)[1:-1] for w in node.words)
    if isinstance(node, Concat):
        return concat(_written(part, known) for part in node.parts)
    if isinstance(node, Alternative):
        return alternative(_written(option, known) for option in node.options)
    if isinstance(node, Repeat):
        return repeat(_written(node.body, known), node.least, node.most)
    if isinstance(node, Machine):
        return Machine(tuple(tuple((_written(inner, known), target) for inner, target in edges)
                             for edges in node.edges), node.accepting)
    raise ValueError("anchors belong to the whole text")


def _character(charset: CharSet) -> Node:
    options: list[Node] = [chars(_without_escaped(charset))]
    for lo, hi in charset.ranges:
        for code in range(lo, min(hi, 0x5C) + 1):
            if code in _ESCAPED:
                if chr(code) in _SHORT:
                    options.append(words([_SHORT[chr(code)]]))
                digit = f"{code:02x}"[1]
                options.append(concat([f"\\u00{code >> 4}", _letters(digit + digit.upper())]))
    return alternative(o for o in options if o != NOTHING) if options else EMPTY


def _without_escaped(charset: CharSet) -> CharSet:
    return (charset.negate() | _ESCAPED).negate()
