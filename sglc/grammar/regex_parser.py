"""Regular expressions in Python's `re` syntax -> syntax tree.

The tree's language is that of `re.fullmatch(pattern, text)` on `str`.  Greedy and lazy
quantifiers give the same language.  What is not regular, or not decidable here, is refused by
name with its place in the pattern: look-around, back-references, conditionals, word borders,
atomic groups and possessive quantifiers.  Knows no automata.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from sglc.errors import GrammarError
from sglc.grammar.charset import ANY, NEWLINE, CharSet, category, ignore_case
from sglc.grammar.regex_escapes import Escape, Reader, Special, class_escape, escape
from sglc.grammar.syntax import Anchor, Node, alternative, chars, concat, repeat

MAX_PATTERN = 100_000
MAX_DEPTH = 80
MAX_COUNT = 10_000
_SPACE = " \t\n\r\v\f"


class Flag(IntFlag):
    ASCII = 1
    IGNORECASE = 2
    MULTILINE = 4
    DOTALL = 8
    VERBOSE = 16


_FLAGS = {"a": Flag.ASCII, "i": Flag.IGNORECASE, "m": Flag.MULTILINE, "s": Flag.DOTALL,
          "u": Flag(0), "x": Flag.VERBOSE}


def parse_regex(pattern: str) -> Node:
    """The syntax tree of `pattern`.

    Raises GrammarError (SGLC006) with the position for a bad or unsupported pattern.
    """
    if not isinstance(pattern, str):
        raise GrammarError("SGLC006", f"a regex must be a str, not {type(pattern).__name__}")
    if len(pattern) > MAX_PATTERN:
        raise GrammarError("SGLC006", f"the pattern has {len(pattern)} characters, "
                                      f"more than {MAX_PATTERN}")
    parser = Parser(Reader(pattern))
    return parser.whole()


@dataclass(slots=True)
class _Item:
    """A parsed piece: what may follow it decides how it may be quantified."""

    node: Node | str
    no_repeat: str = ""  # why no quantifier may follow


class Parser:
    """The parser of one pattern; other dialects override what differs."""

    dot = NEWLINE.negate()
    caret, dollar = "text-start", "final-end"

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.depth = 0
        self.names: set[str] = set()
        self.classes: dict[tuple[str, Flag], Node] = {}

    def whole(self) -> Node:
        flags = self.global_flags()
        node = self.alternation(flags)
        if not self.reader.at_end:
            raise self.reader.error("unbalanced parenthesis", self.reader.pos)
        return node

    def global_flags(self) -> Flag:
        """Flags such as `(?i)`, which Python accepts only where the pattern starts."""
        reader, flags = self.reader, Flag(0)
        while True:
            self.skip(flags)
            start = reader.pos
            if not reader.accept("(?"):
                return flags
            letters = reader.take_while("aiLmsux")
            if not letters or not reader.accept(")"):
                reader.pos = start
                return flags
            flags |= self.flag_bits(letters, start)

    def flag_bits(self, letters: str, pos: int) -> Flag:
        if "L" in letters:
            raise self.reader.error("the flag L is only for bytes patterns", pos)
        if "a" in letters and "u" in letters:
            raise self.reader.error("the flags a and u exclude each other", pos)
        bits = Flag(0)
        for letter in letters:
            bits |= _FLAGS[letter]
        return bits

    def skip(self, flags: Flag) -> None:
        """Past comments, and past white space where the flag x says so."""
        reader = self.reader
        while True:
            if flags & Flag.VERBOSE:
                reader.take_while(_SPACE)
                if reader.accept("#"):
                    reader.take_until("\n")
                    continue
            if not reader.looking_at("(?#"):
                return
            start = reader.pos
            reader.take_until(")")
            if not reader.accept(")"):
                raise reader.error("a comment is not closed", start)

    def alternation(self, flags: Flag) -> Node:
        options = [self.sequence(flags)]
        while self.reader.accept("|"):
            options.append(self.sequence(flags))
        return options[0] if len(options) == 1 else alternative(options)

    def sequence(self, flags: Flag) -> Node:
        reader = self.reader
        items: list[_Item] = []
        while True:
            self.skip(flags)
            c = reader.peek()
            if c in ("", "|", ")"):
                return concat(item.node for item in items)
            start = reader.pos
            if c in "*+?" or (c == "{" and reader.bounds(peek=True)):
                self.quantify(items, start)
                continue
            reader.pos += 1
            if c == "\\":
                items.append(self.escaped(self.escape(start), flags))
            elif c == "[":
                items.append(_Item(self.char_class(flags, start)))
            elif c == ".":
                items.append(_Item(chars(ANY if flags & Flag.DOTALL else self.dot)))
            elif c == "^":
                kind = "line-start" if flags & Flag.MULTILINE else self.caret
                items.append(_Item(Anchor(kind), "nothing to repeat"))
            elif c == "$":
                kind = "line-end" if flags & Flag.MULTILINE else self.dollar
                items.append(_Item(Anchor(kind), "nothing to repeat"))
            elif c == "(":
                items.append(_Item(self.group(flags, start)))
            else:
                items.append(_Item(self.literal(c, flags)))

    def quantify(self, items: list[_Item], start: int) -> None:
        reader = self.reader
        c = reader.peek()
        if c == "{":
            least, most = reader.bounds()
        else:
            reader.pos += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[c]
        item = items[-1] if items else _Item("", "nothing to repeat")
        if item.no_repeat:
            raise reader.error(item.no_repeat, start)
        if max(least, most or 0) > MAX_COUNT:
            raise reader.error(f"a repeat count is larger than {MAX_COUNT}", start)
        if reader.accept("+"):
            raise reader.refuse("a possessive quantifier", start)
        reader.accept("?")
        node = concat((item.node,)) if isinstance(item.node, str) else item.node
        items[-1] = _Item(repeat(node, least, most), "multiple repeat")

    def literal(self, c: str, flags: Flag) -> Node | str:
        if flags & Flag.IGNORECASE:
            code = ord(c)
            return chars(ignore_case(CharSet([(code, code)]), bool(flags & Flag.ASCII)))
        return c

    def escaped(self, found: Escape, flags: Flag) -> _Item:
        if isinstance(found, str):
            return _Item(self.literal(found, flags))
        if found.kind == "anchor":
            return _Item(Anchor(found.value), "nothing to repeat")
        return _Item(chars(self.class_set(found, flags, negated=False)))

    def escape(self, start: int) -> Escape:
        return escape(self.reader, start)

    def class_escape(self, start: int) -> Escape:
        return class_escape(self.reader, start)

    def class_set(self, found: Special, flags: Flag, negated: bool) -> CharSet:
        """The set of an escape such as `\\w`, in a class that is `negated` or not."""
        return category(found.value, bool(flags & Flag.ASCII))

    def group(self, flags: Flag, start: int) -> Node:
        reader = self.reader
        if self.depth >= MAX_DEPTH:
            raise reader.error(f"groups are nested more than {MAX_DEPTH} deep", start)
        if reader.accept("?"):
            flags = self.group_kind(flags, start)
        self.depth += 1
        node = self.alternation(flags)
        self.depth -= 1
        if not reader.accept(")"):
            raise reader.error("missing ), unterminated subpattern", start)
        return node

    def group_kind(self, flags: Flag, start: int) -> Flag:
        """Reads what follows `(?`; the flags inside the group."""
        reader = self.reader
        for opening, name in (("=", "look-ahead"), ("!", "negative look-ahead"),
                              ("<=", "look-behind"), ("<!", "negative look-behind"),
                              (">", "an atomic group"), ("(", "a conditional group"),
                              ("P=", "a back-reference")):
            if reader.looking_at(opening):
                raise reader.refuse(name, start)
        if reader.accept(":"):
            return flags
        if reader.accept("P"):
            return self.named_group(flags, start)
        return self.scoped_flags(flags, start)

    def named_group(self, flags: Flag, start: int) -> Flag:
        """Reads `<name>`."""
        reader = self.reader
        if not reader.accept("<"):
            raise reader.error("unknown extension ?P", start)
        name = reader.take_until(">")
        if not reader.accept(">"):
            raise reader.error("missing >, unterminated name", start)
        if not name.isidentifier():
            raise reader.error(f"bad character in group name {name!r}", start)
        if name in self.names:
            raise reader.error(f"redefinition of group name {name!r}", start)
        self.names.add(name)
        return flags

    def scoped_flags(self, flags: Flag, start: int) -> Flag:
        reader = self.reader
        on = reader.take_while("aiLmsux")
        if on and reader.looking_at(")"):
            raise reader.error("global flags not at the start of the expression", start)
        bits = self.flag_bits(on, start)
        off = ""
        if reader.accept("-"):
            off = reader.take_while("imsx")
            if not off:
                raise reader.error("missing flag, or one that cannot be turned off", start)
            if set(on) & set(off):
                raise reader.error("a flag is turned on and off", start)
        if not (on or off) or not reader.accept(":"):
            raise reader.error("unknown extension", start)
        if "u" in on or "a" in on:
            flags &= ~Flag.ASCII
        return (flags | bits) & ~self.flag_bits(off, start)

    def char_class(self, flags: Flag, start: int) -> Node:
        """A class such as `[^a-z\\d]`, after its `[`."""
        reader = self.reader
        negated = reader.accept("^")
        literal: list[tuple[int, int]] = []
        classes: list[CharSet] = []
        ascii_only = bool(flags & Flag.ASCII)
        opening = reader.pos
        while True:
            at = reader.pos
            if reader.peek() == "]" and at > opening:
                reader.pos += 1
                break
            low = self.class_item(start)
            if not reader.looking_at("-") or reader.peek(1) == "]":
                if isinstance(low, str):
                    literal.append((ord(low), ord(low)))
                else:
                    classes.append(self.class_set(low, flags, negated))
                continue
            reader.pos += 1
            high = self.class_item(start)
            if not (isinstance(low, str) and isinstance(high, str)) or low > high:
                raise reader.error(f"bad character range {reader.text[at:reader.pos]}", at)
            literal.append((ord(low), ord(high)))
        # The same class tends to come up many times in one pattern.
        key = (reader.text[start:reader.pos], flags)
        node = self.classes.get(key)
        if node is None:
            charset = CharSet(literal)
            if flags & Flag.IGNORECASE:
                charset = ignore_case(charset, ascii_only)
            charset = CharSet(r for s in (charset, *classes) for r in s.ranges)
            node = self.classes[key] = chars(charset.negate() if negated else charset)
        return node

    def class_item(self, start: int) -> Escape:
        reader = self.reader
        c = reader.peek()
        if not c:
            raise reader.error("unterminated character set", start)
        at = reader.pos
        reader.pos += 1
        return self.class_escape(at) if c == "\\" else c
