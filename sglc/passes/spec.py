"""Pipelines as text: `fold,hoist-prefixes{min-tokens=16},eliminate-dead{outputs=a,b}`.

Options are separated by spaces, elements of tuples by commas; texts may be JSON strings.  The
types of options are those of the pass's dataclass fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from sglc.errors import LanguageError
from sglc.passes.base import Pass

_TOKEN = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{},=])|(?P<word>[^\s{},="]+))')


def parse_spec(text: str, known: Mapping[str, type[Pass]]) -> tuple[Pass, ...]:
    """The passes that a spec names.  Raises LanguageError for what it does not understand."""
    reader = _Reader(text)
    passes: list[Pass] = []
    while not reader.at_end:
        name = reader.take_word("a pass").replace("_", "-")
        if name not in known:
            raise _error(text, f"unknown pass {name!r}", f"use one of {', '.join(known)}")
        passes.append(_with_options(known[name], reader))
        if not reader.at_end:
            reader.take_mark(",")
            if reader.at_end:
                raise _error(text, "a pass is missing after the last comma", "remove the comma")
    return tuple(passes)


def _with_options(kind: type[Pass], reader: _Reader) -> Pass:
    options: dict[str, Any] = {}
    known = {f.name: f for f in fields(kind)}
    if reader.peek() == "{":
        reader.take_mark("{")
        while reader.peek() != "}":
            written = reader.take_word("an option")
            name = written.replace("-", "_")
            if name not in known:
                names = ", ".join(n.replace("_", "-") for n in known) or "none"
                raise _error(reader.text, f"the pass {kind.name} has no option {written!r}",
                             f"its options are: {names}")
            values = ["true"]
            if reader.peek() == "=":
                reader.take_mark("=")
                values = [reader.take_word("a value")]
                while reader.peek() == ",":
                    reader.take_mark(",")
                    values.append(reader.take_word("a value"))
            options[name] = _value(kind, known[name], values, reader.text)
        reader.take_mark("}")
    return kind(**options)


def _value(kind: type[Pass], field: Field[Any], values: list[str], text: str) -> Any:
    wanted = str(field.type)
    try:
        if wanted.startswith("tuple[int"):
            return tuple(int(v) for v in values)
        if wanted.startswith("tuple["):
            return tuple(values)
        if len(values) == 1:
            (value,) = values
            if wanted == "int":
                return int(value)
            if wanted == "float":
                return float(value)
            if wanted == "bool":
                return {"true": True, "false": False}[value.lower()]
            if wanted == "str":
                return value
    except (ValueError, KeyError):
        pass
    raise _error(text, f"the option {field.name.replace('_', '-')} of {kind.name} is a {wanted}, "
                       f"not {','.join(values)!r}", f"give a {wanted}")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise _error(text, f"cannot read the pipeline at {text[at:]!r}",
                             "close the quotation mark")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind]))
            at = match.end()
        self.at = 0

    @property
    def at_end(self) -> bool:
        return self.at == len(self.tokens)

    def peek(self) -> str | None:
        """The next punctuation mark, if the next token is one."""
        if self.at_end:
            return None
        kind, text = self.tokens[self.at]
        return text if kind == "mark" else None

    def take_mark(self, mark: str) -> None:
        if self.peek() != mark:
            raise _error(self.text, f"{mark!r} is missing {self._here()}", f"write {mark!r} there")
        self.at += 1

    def take_word(self, what: str) -> str:
        if self.at_end or self.peek() is not None:
            raise _error(self.text, f"{what} is missing {self._here()}", f"write {what} there")
        kind, text = self.tokens[self.at]
        self.at += 1
        return str(json.loads(text)) if kind == "string" else text

    def _here(self) -> str:
        return "at the end" if self.at_end else f"before {self.tokens[self.at][1]!r}"


def _error(text: str, what: str, fix: str) -> LanguageError:
    return LanguageError("SGLC008", what, why=f"The pipeline is {text!r}.", fixes=(fix,))
