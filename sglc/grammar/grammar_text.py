"""Lark and EBNF grammars whose rules do not refer to themselves -> syntax tree.

Lark: `name: ...` with the rule `start`; EBNF: `name ::= ...` with the rule `root`.  Such a grammar
is a regular expression with names.  Recursion, directives and whatever else is not read here
raises `Unsupported`, and is another library's business, wrong grammars included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sglc.errors import GrammarError
from sglc.grammar.charset import CharSet
from sglc.grammar.json_shapes import Unsupported
from sglc.grammar.regex_parser import parse_regex
from sglc.grammar.render import has_anchor
from sglc.grammar.syntax import EMPTY, Node, alternative, chars, concat, repeat, words

_MAX_SIZE = 20_000  # pieces, counted where they stand
_MAX_DEPTH = 40
_MAX_COUNT = 10_000

_SPACE = r"\s+|#[^\n]*"
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_LARK = re.compile(
    rf"(?P<space>{_SPACE}|//[^\n]*|->[ \t]*\w+)|(?P<start>^[?!]*(?P<rule>[A-Za-z_]\w*)[ \t]*:)"
    rf"|(?P<string>{_STRING}i?)|(?P<regex>/(?!/)(?:[^/\\\n]|\\.)+/[imsux]*)"
    r"|(?P<count>~[ \t]*\d+(?:[ \t]*\.\.[ \t]*\d+)?)|(?P<to>\.\.)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>[|()\[\]?*+])", re.M)
_EBNF = re.compile(
    rf"(?P<space>{_SPACE})|(?P<start>(?P<rule>[A-Za-z_][\w-]*)\s*::=)"
    rf"|(?P<string>{_STRING})|(?P<regex>\[(?:[^\]\\\n]|\\.)+\])"
    r"|(?P<count>\{[ \t]*\d*[ \t]*,?[ \t]*\d*[ \t]*\})|(?P<name>[A-Za-z_][\w-]*)"
    r"|(?P<sign>[|()?*+])")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.S)
_NAMED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_CLASS_ESCAPES = re.compile(r"\\[^nrtxuU\[\]\\\"'^/-]")

_Token = tuple[str, str]


def is_ebnf(text: str) -> bool:
    return "::=" in text


def grammar_node(text: str) -> Node:
    """The texts of the grammar.  Raises Unsupported for what is not read here."""
    ebnf = is_ebnf(text)
    rules: dict[str, list[_Token]] = {}
    name = ""
    for kind, value in _tokens(text, _EBNF if ebnf else _LARK):
        if kind == "start":
            name = value
            if name in rules:
                raise Unsupported(f"the rule {name} twice")
            rules[name] = []
        elif not name:
            raise Unsupported("a grammar that does not begin with a rule")
        else:
            rules[name].append((kind, value))
    return _Rules(rules, ebnf).node("root" if ebnf else "start", 0)[0]


def _tokens(text: str, pattern: re.Pattern[str]) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = pattern.match(text, at)
        if match is None:
            raise Unsupported(f"the sign {text[at]!r} in a grammar")
        at = match.end()
        kind = match.lastgroup or ""
        if match.group("rule") is not None:
            yield "start", match.group("rule")
        elif kind != "space":
            yield kind, match.group()


class _Rules:
    def __init__(self, rules: dict[str, list[_Token]], ebnf: bool) -> None:
        self.rules = rules
        self.ebnf = ebnf
        self.known: dict[str, tuple[Node, int]] = {}
        self.open: set[str] = set()

    def node(self, name: str, depth: int) -> tuple[Node, int]:
        """The tree of a rule, and its size."""
        if name in self.open:
            raise Unsupported(f"the recursive rule {name}")
        if name not in self.rules:
            raise Unsupported(f"the rule {name}, which is not defined,")
        if name not in self.known:
            self.open.add(name)
            self.known[name] = _Body(self, self.rules[name], depth).whole()
            self.open.discard(name)
        return self.known[name]


class _Body:
    """The right side of one rule."""

    def __init__(self, rules: _Rules, tokens: list[_Token], depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise Unsupported(f"rules nested more than {_MAX_DEPTH} deep")
        self.rules = rules
        self.tokens = tokens
        self.at = 0
        self.depth = depth
        self.size = 0

    def whole(self) -> tuple[Node, int]:
        node = self.options()
        if self.at < len(self.tokens):
            raise Unsupported(f"a {self.tokens[self.at][1]!r} that closes nothing")
        return node, self.size

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def options(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unsupported(f"groups nested more than {_MAX_DEPTH} deep")
        found = [self.sequence()]
        while self.sign("|"):
            found.append(self.sequence())
        self.depth -= 1
        return alternative(found) if len(found) > 1 else found[0]

    def sign(self, wanted: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] == ("sign", wanted):
            self.at += 1
            return True
        return False

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.tokens) and self.tokens[self.at] not in (
                ("sign", "|"), ("sign", ")"), ("sign", "]")):
            parts.append(self.counted(self.item()))
        return concat(parts) if parts else EMPTY

    def counted(self, node: Node) -> Node:
        while self.at < len(self.tokens):
            kind, value = self.tokens[self.at]
            if kind == "count":
                numbers = re.findall(r"\d+", value)
                least = int(numbers[0]) if numbers else 0
                most = int(numbers[-1]) if numbers else None
                if value.replace(" ", "").endswith(",}"):
                    most = None
                elif value.replace(" ", "").startswith("{,"):
                    least = 0
                if max(least, most or 0) > _MAX_COUNT or (most is not None and most < least):
                    raise Unsupported(f"the count {value}")
                node = repeat(node, least, most)
            elif kind == "sign" and value in "?*+":
                least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}[value]
                node = repeat(node, least, most)
            else:
                break
            self.at += 1
        return node

    def item(self) -> Node:
        kind, value = self.tokens[self.at]
        self.at += 1
        self.grow(1)
        if kind == "string":
            return self.string(value)
        if kind == "regex":
            return self.regex(value)
        if kind == "name":
            node, size = self.rules.node(value, self.depth)
            self.grow(size)
            return node
        if kind == "sign" and value in "([":
            node = self.options()
            if not self.sign(")" if value == "(" else "]"):
                raise Unsupported(f"a {value!r} that is not closed")
            return node if value == "(" else repeat(node, 0, 1)
        raise Unsupported(f"a {value!r} that stands alone")

    def grow(self, size: int) -> None:
        self.size += size
        if self.size > _MAX_SIZE:
            raise Unsupported(f"a grammar of more than {_MAX_SIZE} pieces")

    def string(self, text: str) -> Node:
        folded = text.endswith("i")
        value = _unescaped(text[1:-2] if folded else text[1:-1])
        if self.at + 1 < len(self.tokens) and self.tokens[self.at][0] == "to":
            last = _unescaped(self.tokens[self.at + 1][1][1:-1])
            self.at += 2
            if len(value) != 1 or len(last) != 1 or value > last or folded:
                raise Unsupported("a range of characters that is none")
            return chars(CharSet([(ord(value), ord(last))]))
        return parse_regex("(?i)" + re.escape(value)) if folded else words([value])

    def regex(self, text: str) -> Node:
        flags = ""
        if self.rules.ebnf:
            if _CLASS_ESCAPES.search(text):
                raise Unsupported(f"the class {text}")
            pattern = text
        else:
            pattern, _, flags = text[1:].rpartition("/")
            pattern = pattern.replace("\\/", "/")
        try:
            node = parse_regex(f"(?{flags}){pattern}" if flags else pattern)
        except GrammarError as bad:
            raise Unsupported(f"the regex {text}: {bad.diagnostic.what}") from bad
        if has_anchor(node):
            raise Unsupported(f"an anchor in the regex {text}")
        return node


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        for digits in match.groups()[:3]:
            if digits is not None:
                if int(digits, 16) > 0x10FFFF:
                    raise Unsupported(f"the escape {match.group()}")
                return chr(int(digits, 16))
        c = match.group(4)
        if c.isalnum() and c not in _NAMED:
            raise Unsupported(f"the escape \\{c}")
        return _NAMED.get(c, c)

    return _ESCAPE.sub(one, text)
