"""The rows of a batch: requests in OpenAI's batch form, or the arguments of a program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sglc.errors import LanguageError, Place

URLS = ("/v1/chat/completions", "/v1/completions", "/generate")
_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request."""

    custom_id: str
    url: str
    body: dict[str, Any]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_objects(path: str) -> tuple[list[tuple[int, dict[str, Any]]], str]:
    """The objects of a file of JSON lines with the numbers of their lines, and the digest of the
    file.  LanguageError SGLC001 for anything else."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise LanguageError("SGLC001", f"{path} cannot be read", why=str(error)) from None
    out = list(_objects(path, data))
    if not out:
        raise LanguageError("SGLC001", f"{path} has no rows")
    return out, digest(data)


def _objects(path: str, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LanguageError("SGLC001", "a row of the batch is not JSON", why=str(error),
                                place=Place(path, number)) from None
        if not isinstance(row, dict):
            raise LanguageError("SGLC001", "a row of the batch is no object",
                                place=Place(path, number))
        yield number, row


def requests(path: str, rows: list[tuple[int, dict[str, Any]]]) -> list[RequestRow]:
    """Rows in OpenAI's batch form.  LanguageError SGLC001 with the line for any that is not."""
    seen: dict[str, int] = {}
    out = []
    for number, row in rows:
        why = _wrong(row)
        if why is None and row["custom_id"] in seen:
            why = f"line {seen[row['custom_id']]} has this custom_id too"
        if why is not None:
            raise LanguageError(
                "SGLC001", "a row of the batch is no request in OpenAI's batch form", why=why,
                place=Place(path, number),
                fixes=('write {"custom_id": "1", "method": "POST", "url": '
                       '"/v1/chat/completions", "body": {...}}',
                       "give --program for rows of arguments"))
        seen[row["custom_id"]] = number
        out.append(RequestRow(row["custom_id"], row["url"], row["body"]))
    return out


def _wrong(row: dict[str, Any]) -> str | None:
    """What is wrong with a row; None if nothing is."""
    missing = [name for name in _FIELDS if name not in row]
    if missing:
        return f"it has no {missing[0]}"
    if not isinstance(row["custom_id"], str):
        return "its custom_id is no text"
    if row["method"] != "POST":
        return f"its method is {row['method']!r}, not 'POST'"
    if row["url"] not in URLS:
        return f"its url is {row['url']!r}, not one of {', '.join(URLS)}"
    if not isinstance(row["body"], dict):
        return "its body is no object"
    if row["body"].get("stream"):
        return "its body asks for a stream"
    return None
