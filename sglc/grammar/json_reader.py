"""JSON schemas as unions of conjunctions ("shapes"), with references followed.

`allOf`, `$ref` and keywords side by side are conjunctions; `anyOf` and `oneOf` are unions.  A
shape means exactly what its schemas mean; what is left out in writing is `json_schema.py`'s
business.  Knows no automata.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from sglc.errors import GrammarError
from sglc.grammar.json_formats import ANY_STRING, FORMATS, INTEGERS
from sglc.grammar.json_numbers import Range
from sglc.grammar.json_shapes import (
    ALL,
    Goal,
    Items,
    Members,
    Part,
    Shape,
    Unsupported,
    member_goal,
    type_of,
)

MAX_SHAPES = 64
MAX_DEPTH = 40

ANNOTATIONS = frozenset({
    "$anchor", "$comment", "$defs", "$id", "$schema", "contentEncoding", "contentMediaType",
    "contentSchema", "default", "definitions", "deprecated", "description", "discriminator",
    "example", "examples", "externalDocs", "nullable", "readOnly", "title", "writeOnly", "xml"})
"""Keywords that exclude no value."""

KEYWORDS = frozenset({
    "$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "additionalProperties", "allOf",
    "anyOf", "const", "contains", "dependencies", "dependentRequired", "dependentSchemas", "else",
    "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "items", "maxContains",
    "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength",
    "minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties",
    "prefixItems", "properties", "propertyNames", "required", "then", "type", "unevaluatedItems",
    "unevaluatedProperties", "uniqueItems"})
"""Keywords that exclude values, of all drafts."""


class Reader:
    """Reads the schemas of one document, `root`."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.budget = 20_000

    def shapes(self, goal: Goal) -> list[Shape]:
        """The union that a goal means; empty shapes are left out where they are noticed."""
        return self.product([self.part(p) for p in goal])

    def product(self, unions: Iterable[list[Shape]]) -> list[Shape]:
        found = [Shape()]
        for union in unions:
            self.budget -= 1 + len(found) * len(union)
            if self.budget < 0 or len(found) * len(union) > MAX_SHAPES ** 2:
                raise Unsupported("a schema of so many alternatives")
            found = [s for one in found for two in union if not self.empty(s := one.both(two))]
            if len(found) > MAX_SHAPES:
                raise Unsupported(f"a schema of more than {MAX_SHAPES} alternatives")
        return found

    def empty(self, shape: Shape, depth: int = 0) -> bool:
        """Whether the shape surely holds no value (False where that is not seen)."""
        if not shape.types or shape.values == ():
            return True
        if shape.values is not None:
            return not any(type_of(v) in shape.types for v in shape.values)
        left = {t for t in shape.types if not self.type_empty(shape, t, depth)}
        return not left

    def type_empty(self, shape: Shape, kind: str, depth: int) -> bool:
        if kind in ("integer", "real"):
            return shape.range.empty
        if kind == "string":
            return shape.most is not None and shape.most < shape.least
        if kind == "array":
            least = max((a.least for a in shape.arrays), default=0)
            return any(a.most is not None and a.most < least for a in shape.arrays)
        if kind != "object" or depth > 2:
            return False
        for part in shape.objects:
            for name in part.required:
                if self.nothing(member_goal(shape.objects, name), depth + 1):
                    return True
        return False

    def nothing(self, goal: Goal, depth: int) -> bool:
        """Whether surely no value fits the goal."""
        try:
            found = self.shapes(goal)
        except Unsupported:
            return False
        return all(self.empty(s, depth) for s in found)

    def part(self, part: Part, followed: tuple[str, ...] = ()) -> list[Shape]:
        """The union that one schema means; `followed`: the references that led to it while no
        member and no item came between."""
        schema = part.schema
        if schema is True:
            return [Shape()]
        if schema is False:
            return []
        if not isinstance(schema, dict):
            raise Unsupported(f"the schema {schema!r}")
        if len(part.within) > MAX_DEPTH:
            raise Unsupported(f"a schema nested more than {MAX_DEPTH} deep")
        unions = [[self.own(schema, part.within)]]
        if "$ref" in schema:
            name = schema["$ref"]
            if name in followed:
                raise GrammarError("SGLC011", f"the `$ref` {name!r} leads back to itself",
                                   why="so the schema says nothing")
            unions.append(self.part(self.target(name, part.within), (*followed, name)))
        for inner in _schemas(schema, "allOf"):
            unions.append(self.part(Part(inner, part.within), followed))
        if "anyOf" in schema:
            unions.append([s for inner in _schemas(schema, "anyOf")
                           for s in self.part(Part(inner, part.within), followed)])
        if "oneOf" in schema:
            unions.append(self.one_of([self.part(Part(inner, part.within), followed)
                                       for inner in _schemas(schema, "oneOf")]))
        for name, needed in schema.get("dependentRequired", {}).items():
            absent = Members({name: (Part(False),)})
            unions.append([Shape(objects=(absent,)),
                           Shape(objects=(Members({}, (name, *needed)),))])
        return self.product(unions)

    def one_of(self, options: list[list[Shape]]) -> list[Shape]:
        """The union of options, of which at most one may fit a value.

        Where two objects differ by a member that neither requires, both are made to require it:
        fewer values then, but none that fits both.
        """
        for i, one in enumerate(options):
            for two in options[i + 1:]:
                for a in range(len(one)):
                    for b in range(len(two)):
                        if self.empty(one[a].both(two[b])):
                            continue
                        name = self.divider(one[a], two[b])
                        if name is None:
                            raise Unsupported("the keyword `oneOf` with alternatives that may "
                                              "overlap")
                        one[a], two[b] = (
                            replace(s, objects=(*s.objects, Members({}, (name,))))
                            for s in (one[a], two[b]))
        return [shape for option in options for shape in option]

    def divider(self, one: Shape, two: Shape) -> str | None:
        """A member that no object can have so that both fit."""
        if one.types & two.types != {"object"}:
            return None
        parts = one.objects + two.objects
        for name in dict.fromkeys(n for part in one.objects for n in part.named):
            if any(name in part.named for part in two.objects) and self.nothing(
                    member_goal(parts, name), 1):
                return name
        return None

    def target(self, name: Any, within: tuple[str, ...]) -> Part:
        """What a `$ref` names."""
        if name in within:
            raise Unsupported("a recursive `$ref`")
        if not isinstance(name, str) or not name.startswith("#"):
            raise Unsupported(f"the `$ref` {name!r}, which is not within the schema,")
        found = self.root
        if name != "#" and not name.startswith("#/"):
            return Part(self.anchored(name[1:]), (*within, name))
        for step in name.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise Unsupported(f"the `$ref` {name!r}, which names nothing,")
        return Part(found, (*within, name))

    def anchored(self, anchor: str) -> Any:
        todo = [self.root]
        while todo:
            found = todo.pop()
            if isinstance(found, dict):
                if found.get("$anchor") == anchor:
                    return found
                todo.extend(found.values())
            elif isinstance(found, list):
                todo.extend(found)
        raise Unsupported(f"the `$ref` '#{anchor}', which names nothing,")

    def own(self, schema: dict[str, Any], within: tuple[str, ...]) -> Shape:
        """The shape of the keywords of one schema, the combining ones apart."""
        if "$id" in schema and schema is not self.root:
            raise Unsupported("the keyword `$id` inside of a schema")
        shape = Shape()
        for keyword, value in schema.items():
            shape = self.keyword(shape, keyword, value, schema)
        if schema.keys() & _ARRAY:
            shape = replace(shape, about=shape.about | {"array"},
                            arrays=(_items(schema, within),))
        if schema.keys() & _OBJECT:
            shape = replace(shape, about=shape.about | {"object"},
                            objects=(_members(schema, within),))
        return shape

    def keyword(self, shape: Shape, keyword: str, value: Any, schema: dict[str, Any]) -> Shape:
        if keyword in _COMBINING or keyword in _ARRAY or keyword in _OBJECT or (
                keyword in ANNOTATIONS or keyword.startswith("x-")):
            return shape
        if keyword == "type":
            return shape.both(Shape(_types(value), typed=True))
        if keyword in ("const", "enum"):
            values = tuple(value) if keyword == "enum" else (value,)
            return shape.both(Shape(values=values))
        if keyword in _NUMBERS:
            return shape.both(_number(keyword, value, schema))
        if keyword in ("minLength", "maxLength"):
            count = _count(keyword, value)
            return shape.both(Shape(about=_STRING, least=count) if keyword == "minLength" else
                              Shape(about=_STRING, most=count))
        if keyword == "pattern" and isinstance(value, str):
            return shape.both(Shape(about=_STRING, patterns=(value,)))
        if keyword == "format":
            return shape.both(_format(value))
        if keyword == "not":
            return shape.both(_negated(value))
        if keyword in KEYWORDS:
            raise Unsupported(f"the keyword `{keyword}`")
        return shape  # JSON schema gives no meaning to unknown keywords


_COMBINING = frozenset({"$ref", "allOf", "anyOf", "oneOf", "dependentRequired"})
_ARRAY = frozenset({"items", "prefixItems", "additionalItems", "minItems", "maxItems",
                    "uniqueItems"})
_OBJECT = frozenset({"properties", "required", "additionalProperties", "propertyNames",
                     "minProperties", "maxProperties"})
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_STRING = frozenset({"string"})
_NUMBER = frozenset({"integer", "real"})


def _schemas(schema: dict[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword, [])
    if not isinstance(found, list) or (keyword in schema and not found):
        raise Unsupported(f"the keyword `{keyword}` without a list of schemas")
    return found


def _types(value: Any) -> frozenset[str]:
    names = value if isinstance(value, list) else [value]
    found: set[str] = set()
    for name in names:
        if name == "number":
            found |= _NUMBER
        elif isinstance(name, str) and name in ALL and name != "real":
            found.add(name)
        else:
            raise Unsupported(f"the `type` {name!r}")
    return frozenset(found)


def _count(keyword: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or (
            value != int(value)):
        raise Unsupported(f"the keyword `{keyword}` with {value!r}")
    return int(value)


def _number(keyword: str, value: Any, schema: dict[str, Any]) -> Shape:
    if isinstance(value, bool):  # of draft 4: says whether `minimum` itself is excluded
        raise Unsupported(f"the keyword `{keyword}` with {value!r}")
    if not isinstance(value, int | float) or value != value or abs(value) == math.inf:
        raise Unsupported(f"the keyword `{keyword}` with {value!r}")
    if keyword == "multipleOf":
        if value <= 0 or value != int(value) or value > 1000:
            raise Unsupported("the keyword `multipleOf`, but for whole numbers up to 1000,")
        return Shape(about=_NUMBER, multiple=int(value))
    bound, is_open = Fraction(value), keyword.startswith("exclusive")
    within = (Range(low=bound, low_open=is_open) if keyword.endswith("inimum") else
              Range(high=bound, high_open=is_open))
    return Shape(about=_NUMBER, range=within)


def _format(value: Any) -> Shape:
    if value in FORMATS:
        return Shape(about=_STRING, formats=(value,))
    if value in INTEGERS:
        low, high = INTEGERS[value]
        return Shape(about=_NUMBER, range=Range(Fraction(low), Fraction(high)))
    if value in ANY_STRING or value in ("float", "double"):
        return Shape()
    raise Unsupported(f"the `format` {value!r}")


def _negated(schema: Any) -> Shape:
    """`not` of everything, of types, or of single strings."""
    if schema is True or schema == {}:
        return Shape(frozenset(), typed=True)
    if isinstance(schema, dict):
        keys = schema.keys() - ANNOTATIONS
        if keys == {"type"}:
            types = _types(schema["type"])
            if types != {"integer"}:
                return Shape(ALL - types, typed=len(ALL - types) < 3)
        values = schema.get("enum") if keys == {"enum"} else (
            [schema["const"]] if keys == {"const"} else None)
        if isinstance(values, list) and all(isinstance(v, str) for v in values):
            return Shape(without=tuple(values))
    raise Unsupported("the keyword `not`, but for types and strings,")


def _items(schema: dict[str, Any], within: tuple[str, ...]) -> Items:
    first, rest = schema.get("prefixItems", []), schema.get("items")
    if isinstance(rest, list):  # drafts before 2020-12
        if first:
            raise Unsupported("the keyword `items` with a list beside `prefixItems`")
        first, rest = rest, schema.get("additionalItems")
    least, most = (schema.get("minItems"), schema.get("maxItems"))
    return Items(
        tuple((Part(s, within),) for s in first), None if rest is None else (Part(rest, within),),
        0 if least is None else _count("minItems", least),
        None if most is None else _count("maxItems", most), schema.get("uniqueItems") is True)


def _members(schema: dict[str, Any], within: tuple[str, ...]) -> Members:
    named, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(named, dict):
        raise Unsupported("the keyword `properties` without schemas")
    if not isinstance(required, list) or not all(isinstance(n, str) for n in required):
        raise Unsupported("the keyword `required` without a list of names")
    rest, names = schema.get("additionalProperties"), schema.get("propertyNames")
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    return Members(
        {name: (Part(s, within),) for name, s in named.items()}, tuple(required),
        None if rest is None else (Part(rest, within),),
        None if names is None else (Part(names, within),),
        0 if least is None else _count("minProperties", least),
        None if most is None else _count("maxProperties", most), "properties" in schema)
