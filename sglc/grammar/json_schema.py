"""The regular part of JSON schema -> syntax tree of JSON texts.

Every text fits the schema.  Not every value that fits is written, nor in every way:

* Members come in the order of `properties`; white space only as `separators` say.
* Members beyond `properties`, and items beyond `prefixItems`, are written only where
  `additionalProperties` or `items` describes them.
* A schema without `type` whose keywords speak of one type stands for values of that type.
* Fixed texts have one spelling (see `json_strings.py`); integers have no `.0` and no exponent;
  numbers with bounds are decimals (see `json_numbers.py`); strings of a format may be a subset
  (see `json_formats.py`); patterns fit in the readings of ECMA-262 and Python (see `ecma.py`).

What is recursive, too large, or a keyword not known here raises `Unsupported`.  Knows no tokens.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from typing import Any

from sglc.errors import GrammarError
from sglc.grammar.charset import ANY
from sglc.grammar.ecma import parse_ecma
from sglc.grammar.json_formats import FORMATS
from sglc.grammar.json_numbers import integers, numbers
from sglc.grammar.json_reader import Reader
from sglc.grammar.json_shapes import (
    ALL,
    TYPES,
    Goal,
    Items,
    Members,
    Part,
    Shape,
    Unsupported,
    item_goal,
    member_goal,
    smaller,
    type_of,
)
from sglc.grammar.json_strings import fixed, free_string, string_of
from sglc.grammar.machines import difference, intersection, language
from sglc.grammar.nfa import Limits
from sglc.grammar.regex_parser import parse_regex
from sglc.grammar.syntax import (
    EMPTY,
    NOTHING,
    Machine,
    Node,
    Words,
    alternative,
    chars,
    concat,
    repeat,
    words,
)

_MAX_SCHEMAS = 4000  # written out, counted where they stand
_MAX_UNIQUE = 5  # different items of an array without twins
_MAX_COUNTED = 2000  # members or items that are counted


def schema_node(schema: Any, separators: tuple[str, str], limits: Limits) -> Node:
    """The JSON texts that fit `schema` (a dict or bool), as described above.

    Raises Unsupported naming a keyword, or TooLarge past `limits`.
    """
    return _Writer(schema, separators, limits).goal((Part(schema),))


class _Writer:
    def __init__(self, root: Any, separators: tuple[str, str], limits: Limits) -> None:
        self.reader = Reader(root)
        self.comma, self.colon = separators
        self.limits = limits
        self.schemas = 0
        self.strings: dict[Any, Node] = {}

    def goal(self, goal: Goal) -> Node:
        self.schemas += 1
        if self.schemas > _MAX_SCHEMAS:
            raise Unsupported(f"a schema of more than {_MAX_SCHEMAS} parts")
        return alternative(self.shape(shape) for shape in self.reader.shapes(goal))

    def shape(self, shape: Shape) -> Node:
        if shape.values is not None:
            found = [v for v in shape.values if self.fits(v, shape)]
            return words(fixed(v, (self.comma, self.colon)) for v in found)
        types = shape.types
        if not shape.typed and types == ALL:
            types = shape.about
            if not types:
                raise Unsupported("a schema without `type`, which allows any value,")
        if "real" in types and "integer" not in types:
            raise Unsupported("the keyword `not` with integers")
        return alternative(self.typed(kind, shape) for kind in TYPES if kind in types)

    def typed(self, kind: str, shape: Shape) -> Node:
        if kind == "null":
            return words(["null"])
        if kind == "boolean":
            return words(["true", "false"])
        if kind == "integer":
            if "real" in shape.types and shape.multiple is None:
                return numbers(shape.range, self.limits)
            return integers(shape.range, shape.multiple, self.limits)
        if kind == "real":  # written with the integers
            return NOTHING
        if kind == "string":
            return self.string(shape)
        return self.array(shape.arrays) if kind == "array" else self.object(shape.objects)

    def fits(self, value: Any, shape: Shape) -> bool:
        """Whether a value of `enum` meets the rest of its shape."""
        kind = type_of(value)
        if kind not in shape.types:
            return False
        if kind in ("integer", "real"):
            number = Fraction(value)
            return shape.range.holds(number) and (
                shape.multiple is None or number % shape.multiple == 0)
        if kind == "string":
            meant = self.meant(shape)
            return value not in shape.without and shape.least <= len(value) and (
                shape.most is None or len(value) <= shape.most) and (
                meant is None or language(meant, self.limits).holds(value))
        if (kind == "array" and shape.arrays) or (kind == "object" and shape.objects):
            raise Unsupported(f"the keyword `enum` or `const` beside keywords for {kind}s")
        return True

    def meant(self, shape: Shape) -> Node | None:
        """The strings that patterns, formats and exclusions leave, lengths apart; None: all."""
        found: Node | None = None
        for source, parse in (*((p, _pattern) for p in shape.patterns),
                              *((f, _format) for f in shape.formats)):
            key = (source, parse)
            if key not in self.strings:
                self.strings[key] = language(parse(source), self.limits).node()
            node = self.strings[key]
            found = node if found is None else intersection(found, node, self.limits)
        if shape.without:
            anything = repeat(chars(ANY), 0, None)
            found = difference(found or anything, words(shape.without), self.limits)
        return found

    def string(self, shape: Shape) -> Node:
        meant = self.meant(shape)
        if meant is None:
            return free_string(shape.least, shape.most)
        if shape.least or shape.most is not None:
            lengths = repeat(chars(ANY), shape.least, shape.most)
            meant = intersection(meant, lengths, self.limits)
        return string_of(meant) if meant != NOTHING else NOTHING

    def array(self, parts: tuple[Items, ...]) -> Node:
        least = max((p.least for p in parts), default=0)
        most: int | None = None
        for part in parts:
            most = smaller(most, part.most)
        listed = max((len(p.first) for p in parts), default=0)
        rest = item_goal(parts, listed)
        if not rest and (most is None or most > listed):
            if least > listed or not (listed or most == 0):
                raise Unsupported("an array without `items`")
            most = listed
        if any(p.unique for p in parts) and (most is None or most > 1):
            return self.unique(parts, least, most)
        if max(least, most or 0, listed) > _MAX_COUNTED:
            raise Unsupported(f"the keyword `maxItems` or `minItems` over {_MAX_COUNTED}")
        # State 2i: i items written; 2i + 1: the same, and a comma.
        last = max(least, listed) if most is None else most
        nodes: list[Node] = []
        for index in range(last + (most is None)):
            if index <= listed:
                node = self.goal(item_goal(parts, index))
            nodes.append(node)
        edges: list[list[tuple[Node, int]]] = [[] for _ in range(2 * len(nodes) + 1)]
        for index, node in enumerate(nodes):
            separator: Node = words([self.comma]) if index else EMPTY
            edges[2 * index].append((separator, 2 * index + 1))
            edges[2 * index + 1].append((node, 2 * index + 2))
        if most is None:
            edges[-1].append((words([self.comma]), len(edges) - 2))
        ends = tuple(range(2 * least, len(edges), 2))
        return _bracketed("[", edges, ends, "]")

    def unique(self, parts: tuple[Items, ...], least: int, most: int | None) -> Node:
        """Arrays without twins: of a few fixed items only."""
        if any(p.first for p in parts):
            raise Unsupported("the keyword `uniqueItems` beside `prefixItems`")
        items: dict[Any, str] = {}
        for shape in self.reader.shapes(item_goal(parts, 0)):
            node = self.shape(shape)
            if not isinstance(node, Words) or shape.values is None:
                raise Unsupported("the keyword `uniqueItems`, but for items of an `enum`,")
            items |= {text: text for text in node.words}
        if len(items) > _MAX_UNIQUE:
            raise Unsupported(f"the keyword `uniqueItems` with more than {_MAX_UNIQUE} values")
        counts = range(least, min(len(items), len(items) if most is None else most) + 1)
        return words(f"[{self.comma.join(order)}]" for count in counts
                     for order in permutations(items.values(), count))

    def object(self, parts: tuple[Members, ...]) -> Node:
        names = list(dict.fromkeys([n for p in parts for n in p.named]
                                   + [n for p in parts for n in p.required]))
        required = {n for p in parts for n in p.required}
        least = max((p.least for p in parts), default=0)
        most: int | None = None
        for part in parts:
            most = smaller(most, part.most)
        rest = tuple(p for part in parts for p in part.rest or ())
        key_goal = tuple(p for part in parts for p in part.names or ())
        if not rest and not any(p.listed for p in parts) and most != 0:
            raise Unsupported("an object without `properties`")
        members: list[tuple[Node, bool]] = []
        for name in names:
            if not any(name in p.named or p.rest is not None for p in parts):
                raise Unsupported(f"the keyword `required` with {name!r}, which `properties` "
                                  "lacks,")
            value = self.goal(member_goal(parts, name))
            if key_goal and value != NOTHING:
                raise Unsupported("the keyword `propertyNames` beside `properties`")
            if value != NOTHING:
                members.append((concat([fixed(name, (self.comma, self.colon)), self.colon, value]),
                                name in required))
            elif name in required:
                return NOTHING
        extra = self.extra_member(rest, key_goal, names)
        if extra is not None and least > 1 and least > len(required):
            raise Unsupported("the keyword `minProperties` beside free members")
        return self.members(members, extra, max(least - len(required), 0) and least, most)

    def extra_member(self, rest: Goal, key_goal: Goal, names: list[str]) -> Node | None:
        """A member that `properties` does not name, if there may be any."""
        if not rest or any(p.schema is False for p in rest):
            return None
        value = self.goal(rest)
        if value == NOTHING:
            return None
        if not key_goal and not names:
            return concat([free_string(0, None), self.colon, value])
        keys = [s.both(Shape(types=frozenset({"string"}))) for s in self.reader.shapes(key_goal)]
        if any(s.values is not None for s in keys):
            found = {v for s in keys for v in s.values or () if self.fits(v, s)} - set(names)
            key: Node = words(fixed(v, (self.comma, self.colon)) for v in found)
        else:
            barred = Shape(about=frozenset({"string"}), without=tuple(names))
            key = alternative(self.string(s.both(barred) if names else s) for s in keys)
        return concat([key, self.colon, value]) if key != NOTHING else None

    def members(self, members: list[tuple[Node, bool]], extra: Node | None, least: int,
                most: int | None) -> Node:
        """`members` in order, those that are not required maybe; then any number of `extra`."""
        counted = min(len(members) + 1, max(least, 0 if most is None else most + 1))
        if (len(members) + 1) * (counted + 1) > _MAX_COUNTED:
            raise Unsupported(f"an object of more than {_MAX_COUNTED} counted members")
        numbers: dict[tuple[int, int, bool], int] = {}
        edges: list[list[tuple[Node, int]]] = []

        def state(index: int, count: int, comma: bool) -> int:
            """Before member `index`, `count` (at most `top`) written; `comma`: and a comma."""
            key = (index, count, comma)
            if key not in numbers:
                numbers[key] = len(edges)
                edges.append([])
                todo.append(key)
            return numbers[key]

        # Beyond these counts nothing depends on the count, but that one was written.
        top = max(least, 1) if most is None else max(least, most + 1, 1)
        todo: list[tuple[int, int, bool]] = []
        ends: list[int] = []
        state(0, 0, False)
        while todo:
            index, count, comma = key = todo.pop()
            at = numbers[key]
            if most is not None and count > most:
                continue
            after = min(count + 1, top)
            if not comma:
                edges[at].append((words([self.comma]) if count else EMPTY,
                                  state(index, count, True)))
                if index < len(members) and not members[index][1]:
                    edges[at].append((EMPTY, state(index + 1, count, False)))
                if index == len(members) and least <= count:
                    ends.append(at)
            elif index < len(members):
                edges[at].append((members[index][0], state(index + 1, after, False)))
                if not members[index][1]:
                    edges[at].append((EMPTY, state(index + 1, count, True)))
            elif extra is not None:
                edges[at].append((extra, state(index, after, False)))
        return _bracketed("{", edges, tuple(ends), "}")


def _bracketed(opening: str, edges: list[list[tuple[Node, int]]], ends: tuple[int, ...],
               closing: str) -> Node:
    if not ends:
        return NOTHING
    kept = tuple(tuple(e for e in state if e[0] != NOTHING) for state in edges)
    return concat([opening, Machine(kept, ends), closing])


def _pattern(source: str) -> Node:
    try:
        return parse_ecma(source)
    except GrammarError as bad:
        raise Unsupported(f"the keyword `pattern` with {source!r}: "
                          f"{bad.diagnostic.what}") from bad


def _format(name: str) -> Node:
    return parse_regex("(?a)" + FORMATS[name])
