"""Random JSON schemas, values that mostly fit them, and values that mostly do not."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_WORDS = ["a", "b2", "name", "x y", "été", "id", "\"q\"", "tag"]
_FORMATS = {
    "date": ["2024-02-29", "1999-12-31", "2023-02-29", "2024-13-01", "nope"],
    "date-time": ["2024-01-01T10:00:00Z", "2024-01-01T23:59:59.25+02:00", "2024-01-01"],
    "time": ["10:00:00Z", "23:59:59-05:30", "24:00:00Z", "10:00"],
    "email": ["a@example.org", "first.last+tag@mail.example.com", "no at"],
    "ipv4": ["127.0.0.1", "255.255.255.255", "256.1.1.1", "1.2.3"],
    "ipv6": ["::1", "2001:db8::ff00:42:8329", "1:2:3:4:5:6:7:8", ":::", "1:2"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000", "123e4567", "g" * 36],
}
_PATTERNS = {
    r"^[a-z]{2,5}$": ["ab", "abcde", "A", "abcdef"],
    r"^\d{3}-\d{4}$": ["555-1234", "5551234"],
    r"[A-Z]": ["xAy", "Z", "lower"],
    r"^(foo|bar)": ["foo", "barn", "xfoo"],
    r"^[^\s]+$": ["word", "é!", "two words"],
    r"^.{0,4}$": ["", "abcd", "\"\\", "abcde"],
}
_REFUSED = [("contains", {"const": 1}), ("not", {"minimum": 3}), ("$dynamicRef", "#x"),
            ("unevaluatedProperties", {"type": "null"}), ("minContains", 2)]


class Schemas:
    """A source of random schemas; `schema()` gives one, its definitions included."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.defs: dict[str, Any] = {}

    def schema(self) -> dict[str, Any]:
        self.defs = {}
        found = self.any(3)
        if self.defs:
            found = {**found, "$defs": self.defs}
        return found

    def any(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        kinds = [self.integer, self.number, self.string, self.enum, self.simple]
        if depth > 0:
            kinds += [self.object, self.object, self.array, self.any_of, self.ref, self.all_of,
                      self.one_of]
        found = rng.choice(kinds)(depth)
        if rng.random() < 0.1:
            found = {**found, "title": "T", "description": "some text", "default": None}
        return found

    def simple(self, depth: int) -> dict[str, Any]:
        return self.rng.choice([{"type": "boolean"}, {"type": "null"},
                                {"type": ["string", "null"]}, {"type": ["integer", "boolean"]}])

    def bounds(self, found: dict[str, Any], draw: Any) -> dict[str, Any]:
        low = draw()
        if self.rng.random() < 0.5:
            found[self.rng.choice(["minimum", "exclusiveMinimum"])] = low
        if self.rng.random() < 0.5:
            found[self.rng.choice(["maximum", "exclusiveMaximum"])] = low + abs(draw()) + 2
        return found

    def integer(self, depth: int) -> dict[str, Any]:
        found = self.bounds({"type": "integer"}, lambda: self.rng.randint(-50, 200))
        if self.rng.random() < 0.2:
            found["multipleOf"] = self.rng.choice([2, 3, 5, 10])
        return found

    def number(self, depth: int) -> dict[str, Any]:
        return self.bounds({"type": "number"}, lambda: self.rng.choice(
            [self.rng.randint(-20, 20), round(self.rng.uniform(-5, 5), 2), 0, 0.1]))

    def string(self, depth: int) -> dict[str, Any]:
        rng, found = self.rng, {"type": "string"}
        pick = rng.random()
        if pick < 0.25:
            found["format"] = rng.choice(list(_FORMATS))
        elif pick < 0.5:
            found["pattern"] = rng.choice(list(_PATTERNS))
        if rng.random() < 0.3:
            found["minLength"] = rng.randint(0, 3)
        if rng.random() < 0.4:
            found["maxLength"] = rng.randint(2, 12) if pick >= 0.25 else 40
        return found

    def enum(self, depth: int) -> dict[str, Any]:
        values = self.rng.sample([1, 2.5, "a", "b", "é\n", None, True, [1, "x"], {"k": 0}, -7],
                                 self.rng.randint(1, 4))
        return {"enum": values} if self.rng.random() < 0.8 else {"const": values[0]}

    def object(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        names = rng.sample(_WORDS, rng.randint(0, 4))
        found: dict[str, Any] = {"type": "object",
                                 "properties": {n: self.any(depth - 1) for n in names}}
        if rng.random() < 0.7:
            found["required"] = [n for n in names if rng.random() < 0.6]
        pick = rng.random()
        if pick < 0.3:
            found["additionalProperties"] = False
        elif pick < 0.4:
            found["additionalProperties"] = self.any(0)
        if rng.random() < 0.1 and "additionalProperties" not in found:
            found["minProperties"] = rng.randint(0, 2)
            found["maxProperties"] = rng.randint(2, 3)
        if rng.random() < 0.1 and len(names) > 1:
            found["dependentRequired"] = {names[0]: [names[1]]}
        return found

    def array(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        found: dict[str, Any] = {"type": "array"}
        if rng.random() < 0.3:
            found["prefixItems"] = [self.any(depth - 1) for _ in range(rng.randint(1, 2))]
        if "prefixItems" not in found or rng.random() < 0.5:
            found["items"] = self.any(depth - 1)
        if rng.random() < 0.4:
            found["minItems"] = rng.randint(0, 2)
        if rng.random() < 0.4:
            found["maxItems"] = rng.randint(2, 4)
        return found

    def any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.any(depth - 1) for _ in range(self.rng.randint(1, 3))]}

    def one_of(self, depth: int) -> dict[str, Any]:
        if self.rng.random() < 0.5:
            return {"oneOf": [self.string(0), self.number(0), {"type": "null"}]}
        options = [self.object(depth) for _ in range(2)]
        for tag, option in zip(("cat", "dog"), options, strict=True):
            option["properties"] = {"kind": {"const": tag}, **option["properties"]}
            if self.rng.random() < 0.7:
                option["required"] = ["kind", *option.get("required", [])]
        return {"oneOf": options, "discriminator": {"propertyName": "kind"}}

    def all_of(self, depth: int) -> dict[str, Any]:
        if self.rng.random() < 0.5:
            one, two = self.integer(0), self.bounds({}, lambda: self.rng.randint(-50, 200))
            return {"allOf": [one, two]}
        one, two = self.object(depth), self.object(depth - 1)
        return {"allOf": [one, {k: v for k, v in two.items() if k != "additionalProperties"}]}

    def ref(self, depth: int) -> dict[str, Any]:
        name = f"d{len(self.defs)}"
        self.defs[name] = {}
        self.defs[name] = self.any(depth - 1)
        return {"$ref": f"#/$defs/{name}"}

    def refused(self) -> tuple[str, dict[str, Any]]:
        """(keyword, schema): one with a keyword that nothing here enforces."""
        keyword, value = self.rng.choice(_REFUSED)
        return keyword, {"type": "object", "properties": {"a": {keyword: value}},
                         "required": ["a"]}


class Values:
    """Random values for the schemas of one document."""

    def __init__(self, root: dict[str, Any], rng: random.Random) -> None:
        self.root, self.rng = root, rng

    def fitting(self, schema: Any) -> Any:
        """A value that mostly fits, members in the order of the schema."""
        rng = self.rng
        if "$ref" in schema:
            return self.fitting(self.root["$defs"][schema["$ref"].split("/")[-1]])
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.fitting(rng.choice(schema[keyword]))
        if "allOf" in schema:
            merged: dict[str, Any] = {}
            for part in schema["allOf"]:
                for key, value in part.items():
                    if key == "properties":
                        value = {**merged.get(key, {}), **value}
                    elif key == "required":
                        value = merged.get(key, []) + value
                    merged[key] = value
            return self.fitting(merged)
        if "enum" in schema:
            return copy.deepcopy(rng.choice(schema["enum"]))
        if "const" in schema:
            return copy.deepcopy(schema["const"])
        kind = schema.get("type", "integer")
        kind = rng.choice(kind) if isinstance(kind, list) else kind
        return getattr(self, kind)(schema)

    def null(self, schema: Any) -> None:
        return None

    def boolean(self, schema: Any) -> bool:
        return self.rng.random() < 0.5

    def integer(self, schema: Any) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -100))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
        value = self.rng.choice([low, high, int(self.rng.uniform(low, high))])
        return int(value) // schema.get("multipleOf", 1) * schema.get("multipleOf", 1)

    def number(self, schema: Any) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -100))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
        value = self.rng.uniform(low, high)
        return self.rng.choice([low, high, value, round(value, 1), round(value)])

    def string(self, schema: Any) -> str:
        rng = self.rng
        if "format" in schema:
            return rng.choice(_FORMATS[schema["format"]])
        if "pattern" in schema:
            return rng.choice(_PATTERNS[schema["pattern"]])
        size = rng.randint(schema.get("minLength", 0), schema.get("maxLength", 8))
        return "".join(rng.choices("ab \"\\/\né漢😀\x01", k=size))

    def array(self, schema: Any) -> list[Any]:
        first = schema.get("prefixItems", [])
        rest = schema.get("items")
        low, high = schema.get("minItems", 0), schema.get("maxItems", 3)
        size = self.rng.randint(low, max(low, high))
        if rest is None:
            size = min(size, len(first))
        return [self.fitting(first[i] if i < len(first) else rest) for i in range(size)]

    def object(self, schema: Any) -> dict[str, Any]:
        required = schema.get("required", [])
        out = {name: self.fitting(s) for name, s in schema.get("properties", {}).items()
               if name in required or self.rng.random() < 0.5}
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict) and self.rng.random() < 0.5:
            out["more"] = self.fitting(rest)
        return out

    def changed(self, value: Any) -> Any:
        """The value with something wrong in some place, maybe."""
        rng = self.rng
        if isinstance(value, dict) and value and rng.random() < 0.8:
            name = rng.choice(list(value))
            if rng.random() < 0.3:
                return {k: v for k, v in value.items() if k != name}
            if rng.random() < 0.2:
                return {**value, "other": 1}
            return {k: self.changed(v) if k == name else v for k, v in value.items()}
        if isinstance(value, list) and value and rng.random() < 0.8:
            place = rng.randrange(len(value))
            return rng.choice([value[:place] + value[place + 1:], [*value, value[place]],
                               [*value[:place], self.changed(value[place]), *value[place + 1:]]])
        return rng.choice([None, True, 0, -1, 10**6, 0.5, -99.25, "", "zz", "a" * 50, [], {}, [0],
                           {"a": 1}, f"{value}!"])


def written(value: Any) -> str:
    """As constraints write it."""
    return json.dumps(value, ensure_ascii=False)


def closed(schema: Any, inside: bool = False) -> Any:
    """The schema that allows no member and no item which it does not name.

    `inside` of `allOf`, what a schema lacks the ones beside it may name.
    """
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if keyword in schema:
            out[keyword] = [closed(s, keyword == "allOf") for s in schema[keyword]]
    for keyword in ("properties", "$defs"):
        if keyword in schema:
            out[keyword] = {name: closed(s) for name, s in schema[keyword].items()}
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            out[keyword] = closed(schema[keyword])
    if not inside and schema.keys() & {"properties", "prefixItems", "allOf"}:
        out |= {"unevaluatedProperties": False, "unevaluatedItems": False}
    return out
