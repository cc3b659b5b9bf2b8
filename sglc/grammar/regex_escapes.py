"""Reading a pattern character by character, and the escapes of Python's `re` syntax.

Knows what an escape means inside and outside of a class; nothing of what surrounds it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal, overload

from sglc.errors import GrammarError
from sglc.grammar.charset import LAST

_DIGITS = "0123456789"
_OCTAL = "01234567"
_HEX = _DIGITS + "abcdefABCDEF"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Special:
    """An escape that is no single character: a class (`value` its letter) or an anchor."""

    kind: Literal["class", "anchor"]
    value: str


Escape = str | Special


class Reader:
    """A pattern with a position."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0

    @property
    def at_end(self) -> bool:
        return self.pos >= len(self.text)

    def peek(self, ahead: int = 0) -> str:
        at = self.pos + ahead
        return self.text[at] if at < len(self.text) else ""

    def looking_at(self, expected: str) -> bool:
        return self.text.startswith(expected, self.pos)

    def accept(self, expected: str) -> bool:
        if self.looking_at(expected):
            self.pos += len(expected)
            return True
        return False

    def take_while(self, allowed: str, most: int | None = None) -> str:
        start, text = self.pos, self.text
        end = len(text) if most is None else min(len(text), start + most)
        while self.pos < end and text[self.pos] in allowed:
            self.pos += 1
        return text[start:self.pos]

    def take_until(self, stop: str) -> str:
        """What stands before `stop` (not read), or the rest."""
        start = self.pos
        at = self.text.find(stop, start)
        self.pos = len(self.text) if at < 0 else at
        return self.text[start:self.pos]

    @overload
    def bounds(self, peek: Literal[True]) -> bool: ...
    @overload
    def bounds(self, peek: Literal[False] = False) -> tuple[int, int | None]: ...

    def bounds(self, peek: bool = False) -> bool | tuple[int, int | None]:
        """Reads `{m,n}`; with `peek`, whether one stands here (`{` is a character if not)."""
        start = self.pos
        self.pos += 1
        low = self.take_while(_DIGITS)
        comma = self.accept(",")
        high = self.take_while(_DIGITS) if comma else low
        valid = self.accept("}") and bool(low or comma)
        if peek or not valid:
            self.pos = start
            return valid
        if len(low) > 18 or len(high) > 18:
            raise self.error("a repeat count is too large", start)
        least, most = int(low or 0), (int(high) if high else None)
        if most is not None and most < least:
            raise self.error("min repeat greater than max repeat", start)
        return least, most

    def error(self, what: str, pos: int) -> GrammarError:
        return GrammarError("SGLC006", f"{what}, at position {pos} of the regex {self._near(pos)}")

    def refuse(self, name: str, pos: int) -> GrammarError:
        """The error for valid syntax that no constraint supports."""
        return GrammarError(
            "SGLC006", f"{name} is not supported, at position {pos} of the regex "
                       f"{self._near(pos)}",
            why="a constraint must say for every partial text whether it can be completed",
            fixes=("write out what the text may be, without looking around or back",))

    def _near(self, pos: int) -> str:
        text = self.text
        if len(text) <= 60:
            return repr(text)
        cut = text[max(0, pos - 20):pos + 30]
        return f"near {cut!r}"


def escape(reader: Reader, start: int) -> Escape:
    r"""An escape outside of a class; `reader` stands after the `\` at `start`."""
    c = reader.peek()
    if c and c in "dswDSW":
        reader.pos += 1
        return Special("class", c)
    if c and c in "AZ":
        reader.pos += 1
        return Special("anchor", "text-start" if c == "A" else "text-end")
    if c and c in "bB":
        raise reader.refuse(f"a word border (\\{c})", start)
    if c and c in "123456789":
        return _octal_or_reference(reader, start)
    return _character(reader, start)


def class_escape(reader: Reader, start: int) -> Escape:
    r"""An escape inside of a class; `reader` stands after the `\` at `start`."""
    c = reader.peek()
    if c and c in "dswDSW":
        reader.pos += 1
        return Special("class", c)
    if c == "b":
        reader.pos += 1
        return "\b"
    if c and c in "1234567":
        return _code(reader, int(reader.take_while(_OCTAL, 3), 8), start, 0o377)
    return _character(reader, start)


def _octal_or_reference(reader: Reader, start: int) -> Escape:
    digits = reader.text[reader.pos:reader.pos + 3]
    if len(digits) == 3 and all(d in _OCTAL for d in digits):
        reader.pos += 3
        return _code(reader, int(digits, 8), start, 0o377)
    raise reader.refuse("a back-reference", start)


def _character(reader: Reader, start: int) -> str:
    """The escapes that name one character, in and out of classes."""
    c = reader.peek()
    if not c:
        raise reader.error("bad escape (end of pattern)", start)
    reader.pos += 1
    if c in _CONTROL:
        return _CONTROL[c]
    if c in "xuU":
        width = {"x": 2, "u": 4, "U": 8}[c]
        digits = reader.take_while(_HEX, width)
        if len(digits) != width:
            raise reader.error(f"incomplete escape \\{c}{digits}", start)
        return _code(reader, int(digits, 16), start, LAST)
    if c == "0":
        return _code(reader, int("0" + reader.take_while(_OCTAL, 2), 8), start, 0o377)
    if c == "N":
        name = reader.take_until("}")[1:] if reader.looking_at("{") else ""
        if not name or not reader.accept("}"):
            raise reader.error("missing {character name}", start)
        try:
            found = unicodedata.lookup(name)
        except KeyError:
            found = ""
        if len(found) != 1:  # a name may also stand for a sequence
            raise reader.error(f"undefined character name {name!r}", start)
        return found
    if c in _LETTERS or c in _DIGITS:
        raise reader.error(f"bad escape \\{c}", start)
    return c


def _code(reader: Reader, code: int, start: int, most: int) -> str:
    if code > most:
        raise reader.error(f"escape {reader.text[start:reader.pos]} is out of range", start)
    return chr(code)
