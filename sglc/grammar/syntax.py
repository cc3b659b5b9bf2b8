"""The syntax tree of regular languages: what every front end makes and the automaton eats.

Build nodes with the functions `chars`, `words`, `concat`, `alternative` and `repeat`, which
simplify as they go, so that equal languages written alike get equal trees.  Knows no syntax of
patterns and no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sglc.grammar.charset import CharSet


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set of two or more."""

    charset: CharSet


@dataclass(frozen=True, slots=True)
class Words:
    """One of some strings (sorted, distinct; none: the empty language)."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`body` from `least` to `most` times (None: without bound)."""

    body: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """The empty text at a place in the whole text.

    kinds: `text-start`; `line-start` (or after a newline); `text-end`; `final-end` (or before
    a newline that ends the text); `line-end` (or before any newline).
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Machine:
    """An automaton over nodes: `edges[s]` are (node, next state), state 0 starts.

    For what is short as states and long as an expression, such as optional members.
    """

    edges: tuple[tuple[tuple[Node, int], ...], ...]
    accepting: tuple[int, ...]


Node = Chars | Words | Concat | Alternative | Repeat | Anchor | Machine

EMPTY = Words(("",))
NOTHING = Words(())


def chars(charset: CharSet) -> Node:
    """One character of `charset`."""
    ranges = charset.ranges
    if not ranges:
        return NOTHING
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return Words((chr(ranges[0][0]),))
    return Chars(charset)


def words(strings: Iterable[str]) -> Node:
    """One of the strings, verbatim.  Strings with lone surrogates are no text and are dropped."""
    kept = sorted({s for s in strings if s.isascii() or not _has_surrogate(s)})
    if len(kept) > 1 and all(len(s) == 1 for s in kept):
        return Chars(CharSet((ord(s), ord(s)) for s in kept))
    return Words(tuple(kept))


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def concat(parts: Iterable[Node | str]) -> Node:
    """The parts one after another; a `str` stands for itself."""
    out: list[Node] = []
    literal: list[str] = []

    def close() -> None:
        text = "".join(literal)
        literal.clear()
        if text:
            out.append(words((text,)))

    todo = list(parts)
    todo.reverse()
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            literal.append(part)
        elif isinstance(part, Words) and len(part.words) == 1:
            literal.append(part.words[0])
        elif isinstance(part, Concat):
            todo.extend(reversed(part.parts))
        else:
            close()
            out.append(part)
    close()
    if NOTHING in out:
        return NOTHING
    if not out:
        return EMPTY
    return out[0] if len(out) == 1 else Concat(tuple(out))


def alternative(options: Iterable[Node]) -> Node:
    """Any one of the options."""
    strings: list[str] = []
    sets: list[CharSet] = []
    rest: dict[Node, None] = {}
    todo = list(options)
    todo.reverse()
    while todo:
        option = todo.pop()
        if isinstance(option, Words):
            strings.extend(option.words)
        elif isinstance(option, Chars):
            sets.append(option.charset)
        elif isinstance(option, Alternative):
            todo.extend(reversed(option.options))
        else:
            rest.setdefault(option)
    if sets:
        singles = [s for s in strings if len(s) == 1]
        strings = [s for s in strings if len(s) != 1]
        ranges = [r for charset in sets for r in charset.ranges]
        sets = [CharSet(ranges + [(ord(s), ord(s)) for s in singles])]
    out: list[Node] = [chars(s) for s in sets]
    literal = words(strings)
    if literal != NOTHING:
        out.append(literal)
    out.extend(rest)
    if not out:
        return NOTHING
    return out[0] if len(out) == 1 else Alternative(tuple(out))


def repeat(body: Node, least: int, most: int | None) -> Node:
    """`body` from `least` to `most` times."""
    if most == 0 or body == EMPTY:
        return EMPTY
    if body == NOTHING:
        return EMPTY if least == 0 else NOTHING
    if nullable(body):
        least = 0
    if (least, most) == (1, 1):
        return body
    if isinstance(body, Repeat) and body.least <= 1:  # every count between is possible
        most = None if most is None or body.most is None else most * body.most
        return Repeat(body.body, least * body.least, most)
    return Repeat(body, least, most)


def nullable(node: Node) -> bool:
    """Whether the empty text belongs to `node` wherever it stands (anchors: no)."""
    if isinstance(node, Words):
        return "" in node.words
    if isinstance(node, Concat):
        return all(nullable(p) for p in node.parts)
    if isinstance(node, Alternative):
        return any(nullable(o) for o in node.options)
    if isinstance(node, Repeat):
        return node.least == 0 or nullable(node.body)
    if isinstance(node, Machine):
        reached, todo = {0}, [0]
        while todo:
            for inner, target in node.edges[todo.pop()]:
                if target not in reached and nullable(inner):
                    reached.add(target)
                    todo.append(target)
        return not reached.isdisjoint(node.accepting)
    return False


def shortest(node: Node) -> int:
    """Characters of the shortest text, at least (the parts of a Machine are not looked at)."""
    if isinstance(node, Chars):
        return 1
    if isinstance(node, Words):
        return min(map(len, node.words), default=0)
    if isinstance(node, Concat):
        return sum(shortest(p) for p in node.parts)
    if isinstance(node, Alternative):
        return min(shortest(o) for o in node.options)
    if isinstance(node, Repeat):
        return node.least * shortest(node.body) if node.least else 0
    return 0


def canonical(node: Node) -> str:
    """A text that is equal exactly for equal trees (sets of many ranges by their hash)."""
    if isinstance(node, Chars):
        return f"[{node.charset.key}]"
    if isinstance(node, Words):
        return f"(words {' '.join(json.dumps(w) for w in node.words)})"
    if isinstance(node, Concat):
        return f"(cat {' '.join(canonical(p) for p in node.parts)})"
    if isinstance(node, Alternative):
        return f"(or {' '.join(canonical(o) for o in node.options)})"
    if isinstance(node, Repeat):
        most = "" if node.most is None else node.most
        return f"(rep {node.least} {most} {canonical(node.body)})"
    if isinstance(node, Machine):
        states = (" ".join(f"{target}:{canonical(inner)}" for inner, target in edges)
                  for edges in node.edges)
        return f"(machine {' / '.join(states)} / {' '.join(map(str, node.accepting))})"
    return f"({node.kind})"
