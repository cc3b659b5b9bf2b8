"""The regular subset of JSON schema -> a regex, as SGLang's `build_regex_from_object`.

Objects have their properties in the order of the schema, ", " between members and ": " after
keys.  Everything that the regex would not enforce is refused with the keyword's name.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sglc.errors import GrammarError
from sglc.grammar.schema import schema_dict

_HEX = "[0-9a-fA-F]"
# One character of a JSON string: itself, an escape, or a code that is no lone surrogate.
_CHARACTER = (r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]'
              rf"|\\u(?:[0-9abcefABCEF]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}}"
              rf"|[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}))")
_INTEGER = r"-?(?:0|[1-9][0-9]*)"
_SCALARS = {
    "boolean": "(?:true|false)",
    "integer": _INTEGER,
    "null": "null",
    "number": _INTEGER + r"(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?",
}
_ANNOTATIONS = frozenset({
    "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description",
    "examples", "readOnly", "title", "writeOnly"})
_KEYWORDS = {
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
    "string": {"minLength", "maxLength"},
}


def build_regex_from_object(obj: Any) -> str:
    """The regex of the JSON texts that fit a pydantic model, a schema dict or a schema text.

    Raises GrammarError (SGLC011) naming the keyword that no regex here enforces.
    """
    root = schema_dict(obj)
    return _Writer(root).regex(root, ())


class _Writer:
    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root

    def regex(self, schema: Any, within: tuple[str, ...]) -> str:
        """The regex of `schema`; `within`: the references being followed."""
        if not isinstance(schema, dict):
            raise _refuse(f"the schema {schema!r}")
        keys = schema.keys() - _ANNOTATIONS
        for keyword, write in (("$ref", self.reference), ("const", self.constant),
                               ("enum", self.enumeration), ("anyOf", self.any_of)):
            if keyword in keys:
                typed = {"type"} if keyword in ("const", "enum") else set()
                self.only(keys, {keyword} | typed)
                return write(schema, within)
        kinds = schema.get("type")
        if isinstance(kinds, list) and kinds:
            options = [self.typed(kind, {k: v for k, v in schema.items() if k == "type" or
                                         k in _KEYWORDS.get(kind, ())}, within)
                       for kind in kinds]
            self.only(keys, {"type"}.union(*(_KEYWORDS.get(k, set()) for k in kinds)))
            return f"(?:{'|'.join(options)})"
        if not isinstance(kinds, str):
            raise _refuse("a schema without `type`")
        self.only(keys, {"type"} | _KEYWORDS.get(kinds, set()))
        return self.typed(kinds, schema, within)

    def only(self, keys: set[str], known: set[str]) -> None:
        for keyword in sorted(keys - known):
            raise _refuse(f"the keyword `{keyword}`")

    def typed(self, kind: str, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        if kind in _SCALARS:
            return _SCALARS[kind]
        if kind == "string":
            return f'"{_CHARACTER}{_counts(schema, "minLength", "maxLength")}"'
        if kind == "array":
            return self.array(schema, within)
        if kind == "object":
            return self.object(schema, within)
        raise _refuse(f"the type {kind!r}")

    def reference(self, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        name = schema["$ref"]
        if name in within:
            raise _refuse("a recursive `$ref`")
        target: Any = self.root
        if not (isinstance(name, str) and name.startswith("#")):
            raise _refuse(f"the `$ref` {name!r}, which is not within the schema,")
        for part in name[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or part not in target:
                raise _refuse(f"the `$ref` {name!r}, which names nothing,")
            target = target[part]
        return self.regex(target, (*within, name))

    def constant(self, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        return self.values([schema["const"]], schema)

    def enumeration(self, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        return self.values(schema["enum"], schema)

    def values(self, values: list[Any], schema: dict[str, Any]) -> str:
        kinds = schema.get("type")
        if kinds is not None:
            kinds = kinds if isinstance(kinds, list) else [kinds]
            values = [v for v in values if any(_is_a(v, kind) for kind in kinds)]
        if not values:
            raise _refuse("an `enum` without a value of its type")
        return f"(?:{'|'.join(_json(v) for v in values)})"

    def any_of(self, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        if not schema["anyOf"]:
            raise _refuse("an empty `anyOf`")
        return f"(?:{'|'.join(self.regex(s, within) for s in schema['anyOf'])})"

    def array(self, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        if "items" not in schema:
            raise _refuse("an array without `items`")
        item = f"(?:{self.regex(schema['items'], within)})"
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return r"\[\]"
        counts = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        body = f"{item}(?:, {item}){counts}"
        return rf"\[{body}\]" if least else rf"\[(?:{body})?\]"

    def object(self, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        properties = schema.get("properties", {})
        if isinstance(schema.get("additionalProperties"), dict) or (
                not properties and schema.get("additionalProperties", True)):
            raise _refuse("the keyword `additionalProperties` (free keys)")
        required = set(schema.get("required", ()))
        for name in sorted(required - properties.keys()):
            raise _refuse(f"the `required` property {name!r}, which `properties` lacks,")
        members = [(f"{_json(name)}: {self.regex(value, within)}", name in required)
                   for name, value in properties.items()]
        first = next((i for i, (_, needed) in enumerate(members) if needed), None)
        if first is not None:
            before = "".join(f"(?:{text}, )?" for text, _ in members[:first])
            return rf"\{{{before}{members[first][0]}{_followers(members[first + 1:])}\}}"
        starts = [text + _followers(members[i + 1:]) for i, (text, _) in enumerate(members)]
        return rf"\{{(?:{'|'.join(starts)})?\}}" if starts else r"\{\}"


def _followers(members: list[tuple[str, bool]]) -> str:
    return "".join(f", {text}" if needed else f"(?:, {text})?" for text, needed in members)


def _counts(schema: dict[str, Any], least: str, most: str) -> str:
    if least not in schema and most not in schema:
        return "*"
    return f"{{{schema.get(least, 0)},{schema.get(most, '')}}}"


def _json(value: Any) -> str:
    return re.escape(json.dumps(value, ensure_ascii=False))


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types: dict[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "number": (int, float), "null": (type(None),),
        "array": (list,), "object": (dict,)}
    return isinstance(value, types.get(kind, ()))


def _refuse(what: str) -> GrammarError:
    return GrammarError("SGLC011", f"{what} cannot be written as a regex",
                        fixes=("use json_schema= instead",))
