"""Whatever describes JSON values -> their JSON schema, and a parser of their texts.

Knows no grammar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, get_origin

from sglc.errors import GrammarError

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
    elif hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    elif _is_type(schema):
        schema = _adapter(schema).json_schema()
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise GrammarError("SGLC011", "a JSON schema is a dict, its JSON text, or a pydantic "
                                      f"model, not {type(schema).__name__}")
    return schema


def schema_text(schema: Any) -> str:
    """`schema_dict(schema)` as JSON text; the order of keys, which is the order of properties
    in the output, is kept."""
    try:
        return json.dumps(schema_dict(schema), ensure_ascii=False)
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
