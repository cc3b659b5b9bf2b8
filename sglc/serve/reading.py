"""Reading a request's body: JSON within limits of size, depth and time, then checked against a
model of its fields.

Stricter than Python's `json`: no NaN or infinities, no key twice, no integers beyond 64 bits, no
lone surrogates in keys, and only so deep.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from contextlib import ExitStack
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sglc.serve.problems import Problem
from sglc.serve.room import Room
from sglc.serve.waiting import within

MAX_DEPTH = 64
_INLINE = 1 << 16  # bytes; larger bodies are parsed in a thread
_STEP = 1 << 20  # bytes that are held for a body at a time
# A string that does not end goes to the end: each byte is looked at once.
_NESTING = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[{]|[\]}]', re.DOTALL)

M = TypeVar("M", bound=BaseModel)


async def read_body(request: web.Request, model: type[M], *, seconds: float, pool: Any,
                    room: Room, until: ExitStack) -> M:
    """The checked body.  Raises Problem 400, 408, 413, 415 or 429.

    room: of all bodies that are not small, where it is held until `until` is closed.
    """
    if request.content_type != "application/json":
        raise Problem(415, "the body must be sent as application/json",
                      code="unsupported_media_type")
    charset = (request.charset or "utf-8").lower()
    if charset not in ("utf-8", "utf8"):
        raise Problem(415, "the body must be UTF-8", code="unsupported_media_type")
    if (request.content_length or 0) > request.client_max_size:
        raise _too_large()
    try:
        data = await within(_read(request, room, until), seconds)
    except asyncio.TimeoutError:
        raise Problem(408, f"the body did not arrive within {seconds:g} s", code="timeout",
                      headers={"Connection": "close"}) from None
    except (Problem, web.HTTPException):
        raise
    except Exception as error:  # a broken encoding or transfer
        raise Problem(400, f"the body cannot be read ({type(error).__name__})",
                      code="invalid_body", headers={"Connection": "close"}) from None
    if len(data) <= _INLINE:
        return parse(data, model)
    return await asyncio.get_running_loop().run_in_executor(pool, parse, data, model)


async def _read(request: web.Request, room: Room, until: ExitStack) -> bytes:
    """The body, unpacked; what is more than a little takes room as it comes."""
    out, held = bytearray(), _INLINE
    async for piece in request.content.iter_any():
        out += piece
        if len(out) > request.client_max_size:
            raise _too_large()
        while len(out) > held:
            room.hold(_STEP, until)
            held += _STEP
    return bytes(out)


def _too_large() -> Problem:
    return Problem(413, "the body is too large", code="body_too_large",
                   headers={"Connection": "close"})


def parse(data: bytes, model: type[M]) -> M:
    """The model's value of JSON text.  Raises Problem 400 that names the field at fault."""
    _check_depth(data)
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_constant=_constant,
                           parse_int=_integer, parse_float=_float)
    except Problem:
        raise
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem(400, f"the body is not JSON{where}", code="invalid_json") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error, value) from None


def _invalid(error: ValidationError, value: Any) -> Problem:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    names: list[str] = []
    for part in first["loc"]:  # names of types stand among those of fields
        if isinstance(value, dict) and (part in value or part is first["loc"][-1]):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        names.append(str(part))
    path = ".".join(names) or None
    if first["type"] == "extra_forbidden":
        return Problem(400, f"there is no field {path!r}", param=path, code="unknown_field")
    return Problem(400, f"{path or 'the body'}: {first['msg']}", param=path,
                   code="invalid_value")


def _check_depth(data: bytes) -> None:
    depth = 0
    for match in _NESTING.finditer(data):
        char = match.group()
        if char in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Problem(400, f"the body nests deeper than {MAX_DEPTH}", code="invalid_json")
        elif char in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise Problem(400, "an object of the body has a key twice", code="invalid_json")
    return out


def _constant(name: str) -> Any:
    raise Problem(400, f"{name} is not JSON", code="invalid_json")


def _integer(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        raise Problem(400, "a number of the body has more than 64 bits", code="invalid_json")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise Problem(400, "a number of the body is out of range", code="invalid_json")
    return value
