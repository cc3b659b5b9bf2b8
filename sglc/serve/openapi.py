"""The OpenAPI document, from the table of routes and the models of their bodies."""

from __future__ import annotations

from typing import Any

from sglc import __version__

_ERRORS = {
    "400": "the request makes no sense", "401": "no API key, or a wrong one",
    "403": "not allowed", "404": "no such model or route", "405": "no such method",
    "408": "the body came too slowly", "413": "the body is too large",
    "415": "not JSON", "422": "the program failed", "429": "the queue is full",
    "500": "a defect of the server", "503": "the server is stopping or stalled",
    "504": "it took too long"}
_MEDIA: dict[str, Any] = {
    "application/json": {"schema": {"type": ["object", "array"]}},
    "text/plain": {"schema": {"type": "string"}},
    # Each event's `data` is JSON text, the last one "[DONE]".
    "text/event-stream": {"schema": {"type": ["object", "string"]}}}


def document(keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1.  keyed: whether an API key is needed."""
    from sglc.serve.routes import ROUTES

    schemas: dict[str, Any] = {"Error": {
        "type": "object", "required": ["error"], "properties": {"error": {
            "type": "object", "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"},
                           "param": {"type": ["string", "null"]},
                           "code": {"type": ["string", "null"]}}}}}}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        media = {m: _MEDIA[m] for m in route.media}
        operation: dict[str, Any] = {
            "operationId": f"{route.method.lower()}{route.path.replace('/', '_')}",
            "summary": route.summary,
            "responses": {"200": {"description": "fine", "content": media}, **{
                status: {"description": text, "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Error"}}}}
                for status, text in _ERRORS.items()}}}
        if route.path == "/flush_cache":
            operation["responses"]["400"] = {
                "description": "requests are running", "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
        if route.body is not None:
            schema = route.body.model_json_schema(
                ref_template="#/components/schemas/{model}", by_alias=True)
            schemas.update(schema.pop("$defs", {}))
            schemas[route.body.__name__] = schema
            operation["requestBody"] = {"required": True, "content": {"application/json": {
                "schema": {"$ref": f"#/components/schemas/{route.body.__name__}"}}}}
        if keyed and route.access != "open":
            operation["security"] = [{"bearer": []}, {"header": []}]
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    out: dict[str, Any] = {
        "openapi": "3.1.0", "info": {"title": "sglc", "version": __version__},
        "paths": paths, "components": {"schemas": schemas}}
    if keyed:
        out["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    return out
