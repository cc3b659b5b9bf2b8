"""Whatever describes JSON values -> their JSON schema, and a parser of their texts.

Knows no grammar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, get_origin

from sglc.errors import GrammarError

MAX_DEPTH = 100
"""Levels of lists and objects in a schema's JSON."""
MAX_PARTS = 200_000
"""Lists and objects on one level."""

_MAPS = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"items", "prefixItems", "anyOf"})
# Where one of these is, a schema's meaning may hang on what another one lets through.
_ENTANGLING = frozenset({
    "allOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "patternProperties",
    "unevaluatedProperties", "unevaluatedItems", "contains", "propertyNames", "$dynamicRef",
    "$recursiveRef"})


def schema_dict(schema: Any) -> dict[str, Any]:
    """The schema of a pydantic model (class or instance), a dict, a JSON text, or any other
    type that pydantic has a schema for (`list[Model]`, a dataclass, a TypedDict)."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as bad:
            raise GrammarError("SGLC011", "the JSON schema is not JSON", why=str(bad)) from bad
        except RecursionError as deep:
            raise _too_deep() from deep
    elif hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    elif _is_type(schema):
        schema = _adapter(schema).json_schema()
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise GrammarError("SGLC011", "a JSON schema is a dict, its JSON text, or a pydantic "
                                      f"model, not {type(schema).__name__}")
    _check_depth(schema)
    return schema


def _check_depth(schema: Any) -> None:
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, dict | list)]
        if not level:
            return
        if len(level) > MAX_PARTS:
            raise GrammarError("SGLC011", f"the JSON schema has more than {MAX_PARTS} parts")
    raise _too_deep()


def _too_deep() -> GrammarError:
    return GrammarError("SGLC011", f"the JSON schema is nested more than {MAX_DEPTH} deep",
                        fixes=("give its parts names under $defs",))


def schema_text(schema: Any) -> str:
    """`schema_dict(schema)` as JSON text; the order of keys, which is the order of properties
    in the output, is kept."""
    found = schema_dict(schema)
    try:
        return json.dumps(found, ensure_ascii=False)
    except (TypeError, ValueError) as bad:
        raise GrammarError("SGLC011", "the JSON schema is not JSON", why=str(bad)) from bad


def value_parser(schema: Any) -> Callable[[str], Any]:
    """A function from the text of a JSON value to the value that `schema` describes: an instance
    of a pydantic model or other type, and plain Python values for a schema as dict or text.

    The function raises ValueError (pydantic's ValidationError) for a text that does not fit.
    """
    if isinstance(schema, str | dict | bool):
        return json.loads
    if hasattr(schema, "model_json_schema"):
        model = schema if isinstance(schema, type) else type(schema)
        parse: Callable[[str], Any] = model.model_validate_json
        return parse
    if _is_type(schema):
        return _adapter(schema).validate_json
    raise GrammarError("SGLC011", "a JSON schema is a dict, its JSON text, or a pydantic model, "
                                  f"not {type(schema).__name__}")


def closed(schema: Any) -> Any:
    """`schema` with `additionalProperties: false` where objects with `properties` say nothing.

    Fewer values fit it, never more: it is returned as it is where leaving members out could let
    something through elsewhere.
    """
    return _closed(schema) if _separate(schema) else schema


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, dict):
            out[keyword] = {name: _closed(s) for name, s in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            out[keyword] = [_closed(s) for s in value]
        elif keyword in ("items", "additionalProperties"):
            out[keyword] = _closed(value)
    if "properties" in schema:
        out.setdefault("additionalProperties", False)
    return out


def _separate(schema: Any) -> bool:
    """Whether no schema says something about the members that another one names."""
    if isinstance(schema, list):
        return all(map(_separate, schema))
    if not isinstance(schema, dict):
        return True
    if _ENTANGLING & schema.keys() or len({"properties", "$ref", "anyOf"} & schema.keys()) > 1:
        return False
    return all(map(_separate, schema.values()))


def check_ends(schema: Any) -> None:
    """Raises GrammarError (SGLC011) for a schema whose values would all be infinite, because what
    it requires leads back to it."""
    if not _Ends(schema).possible(schema, frozenset()):
        raise GrammarError("SGLC011", "no finite value fits the JSON schema",
                           why="a `$ref` leads to what is required for itself, again and again",
                           fixes=("make the recursive property optional, or allow null there",))


class _Ends:
    """Whether finite values may fit the schemas of a document; True where that is not seen."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.steps = 0

    def possible(self, schema: Any, within: frozenset[str]) -> bool:
        self.steps += 1
        if self.steps > 5_000 or not isinstance(schema, dict):
            return True
        name = schema.get("$ref")
        if isinstance(name, str) and (name == "#" or name.startswith("#/")):
            if name in within or not self.possible(self.target(name), within | {name}):
                return False
        if not all(self.possible(s, within) for s in _list(schema, "allOf")):
            return False
        for keyword in ("anyOf", "oneOf"):
            options = _list(schema, keyword)
            if options and not any(self.possible(s, within) for s in options):
                return False
        kind = schema.get("type")
        if kind == "object":
            members = schema.get("properties")
            return not isinstance(members, dict) or all(
                self.possible(members.get(name), within) for name in _list(schema, "required")
                if isinstance(name, str))
        least = schema.get("minItems")
        if kind == "array" and isinstance(least, int) and least > 0:
            first = _list(schema, "prefixItems") or [schema.get("items")]
            return self.possible(first[0], within)
        return True

    def target(self, name: str) -> Any:
        found = self.root
        for step in name.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, dict) else None
        return found


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword)
    return found if isinstance(found, list) else []


def check_spelling(schema: Any, known: Iterable[str]) -> None:
    """Raises GrammarError (SGLC011) for a keyword that is not `known`, but nearly: by the rules
    of JSON schema it would mean nothing."""
    todo = [schema]
    while todo:
        found = todo.pop()
        if not isinstance(found, dict):
            continue
        for keyword, value in found.items():
            if keyword not in known and (near := get_close_matches(keyword, known, 1, 0.8)):
                raise GrammarError("SGLC011", f"the schema has the unknown keyword `{keyword}`",
                                   why="it would exclude nothing",
                                   fixes=(f"write `{near[0]}`", f"write `x-{keyword}`"))
            if keyword in _MAPS and isinstance(value, dict):
                todo.extend(value.values())
            elif isinstance(value, list) and keyword in _LISTS | {"allOf", "oneOf"}:
                todo.extend(value)
            elif keyword in ("items", "additionalProperties", "not", "propertyNames"):
                todo.append(value)


def _is_type(schema: Any) -> bool:
    return isinstance(schema, type) or get_origin(schema) is not None


def _adapter(kind: Any) -> Any:
    try:
        from pydantic import TypeAdapter
    except ImportError as missing:
        raise GrammarError("SGLC011", f"a schema of {kind!r} needs the package pydantic",
                           fixes=("pip install pydantic",)) from missing
    try:
        return TypeAdapter(kind)
    except Exception as bad:  # pydantic's errors have no common type
        raise GrammarError("SGLC011", f"pydantic has no schema for {kind!r}",
                           why=str(bad)) from bad
