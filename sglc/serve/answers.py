"""JSON answers."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from sglc.serve.context import CONTEXT


def json_answer(request: web.Request, value: Any, status: int = 200,
                headers: dict[str, str] | None = None) -> web.Response:
    """`value` as JSON, with the headers that every answer has."""
    return web.Response(
        body=json.dumps(value).encode(), status=status, content_type="application/json",
        charset="utf-8", headers={**request[CONTEXT].headers, **(headers or {})})
