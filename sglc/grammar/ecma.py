"""The patterns of JSON schemas (ECMA-262) -> syntax tree of the strings they are found in.

Validators differ: some read a pattern as ECMA-262 says, some as Python does.  The tree holds the
strings that fit in both readings (so `\\d` is 0-9, and `\\D` no digit of any script); what the two
take for different constructs is refused by name.  Knows no schemas.
"""

from __future__ import annotations

from sglc.errors import GrammarError
from sglc.grammar.charset import ANY, CharSet, category
from sglc.grammar.regex_escapes import Escape, Reader, Special, class_escape, escape
from sglc.grammar.regex_parser import MAX_PATTERN, Flag, Parser
from sglc.grammar.syntax import Node, chars, concat, repeat

_BOTH = frozenset("dDsSwWfnrtvxu0")  # letters and digits whose escapes mean the same in both
_SPACE = CharSet([(9, 13), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
                  (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)])


def parse_ecma(pattern: str) -> Node:
    """The strings in which `pattern` is found; it is anchored only by `^` and `$`.

    Raises GrammarError (SGLC006) with the position for a bad or unsupported pattern.
    """
    if len(pattern) > MAX_PATTERN:
        raise GrammarError("SGLC006", f"the pattern has {len(pattern)} characters, "
                                      f"more than {MAX_PATTERN}")
    anything = repeat(chars(ANY), 0, None)
    return concat([anything, _Parser(Reader(pattern)).whole(), anything])


class _Parser(Parser):
    dot = CharSet([(10, 10), (13, 13), (0x2028, 0x2029)]).negate()
    dollar = "text-end"

    def global_flags(self) -> Flag:
        return Flag(0)

    def skip(self, flags: Flag) -> None:
        """ECMA-262 knows no comments."""

    def quantify(self, items: list, start: int) -> None:
        if self.reader.looking_at("{,"):
            raise self.reader.refuse("{,n}, which is a text to some,", start)
        super().quantify(items, start)

    def group_kind(self, flags: Flag, start: int) -> Flag:
        reader = self.reader
        if reader.accept("<") and not (reader.looking_at("=") or reader.looking_at("!")):
            reader.pos -= 1
            return self.named_group(flags, start)
        reader.pos = start + 2
        if reader.looking_at("#") or reader.peek() in tuple("aiLmsux-"):
            raise reader.refuse("a flag or a comment", start)
        return super().group_kind(flags, start)

    def escape(self, start: int) -> Escape:
        self.check_escape(start)
        return escape(self.reader, start)

    def class_escape(self, start: int) -> Escape:
        if self.reader.peek() != "b":
            self.check_escape(start)
        return class_escape(self.reader, start)

    def check_escape(self, start: int) -> None:
        reader = self.reader
        c = reader.peek()
        if c.isascii() and c.isalnum() and c not in _BOTH:
            if c in "bB":
                raise reader.refuse(f"a word border (\\{c})", start)
            raise reader.refuse("a back-reference" if c.isdigit() else f"the escape \\{c}", start)
        if c == "0" and reader.peek(1).isdigit():
            raise reader.refuse("an octal escape", start)
        if reader.looking_at("u{"):
            raise reader.refuse("the escape \\u{...}", start)

    def char_class(self, flags: Flag, start: int) -> Node:
        reader = self.reader
        if reader.looking_at("]") or reader.looking_at("^]"):
            raise reader.refuse("a class that is empty to some", start)
        return super().char_class(flags, start)

    def class_set(self, found: Special, flags: Flag, negated: bool) -> CharSet:
        """At most what both readings hold; at least what one does where that is taken away."""
        letter = found.value.lower()
        upper = found.value != letter
        charset = _wide(letter) if negated != upper else _narrow(letter)
        return charset.negate() if upper else charset


def _narrow(letter: str) -> CharSet:
    return _SPACE if letter == "s" else category(letter, True)


def _wide(letter: str) -> CharSet:
    wide = category(letter, False)
    return wide | _SPACE | CharSet([(0xFEFF, 0xFEFF)]) if letter == "s" else wide
