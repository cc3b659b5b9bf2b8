"""Whatever describes a JSON value -> the text of its JSON schema.  Knows no grammar."""

from __future__ import annotations

import json
from typing import Any

from sglc.errors import GrammarError


def schema_dict(schema: Any) -> dict[str, Any]:
    """The schema of a pydantic model (class or instance), a dict, or a JSON text."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as bad:
            raise GrammarError("SGLC011", "the JSON schema is not JSON", why=str(bad)) from bad
    elif hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
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
