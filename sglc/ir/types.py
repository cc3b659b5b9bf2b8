"""The types of IR values."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """A type: a name, and for `!choice` the texts, for `!list` the element type."""

    name: str
    args: tuple[str | Type, ...] = ()

    def __str__(self) -> str:
        if not self.args:
            return f"!{self.name}"
        inner = ", ".join(json.dumps(a, ensure_ascii=False) if isinstance(a, str) else str(a)
                          for a in self.args)
        return f"!{self.name}<{inner}>"


PROMPT = Type("prompt")  # an immutable prompt value
TEXT = Type("text")
BOOL = Type("bool")
INT = Type("int")
FLOAT = Type("float")
JSON = Type("json")  # plain data: None, bool, int, float, str, lists and dicts of these
ANY = Type("any")  # an opaque Python value
IMAGE = Type("image")
SCORES = Type("scores")  # what a select measured
META = Type("meta")  # what a gen reports beside its text
KV = Type("kv")  # a prompt bound to a tokenizer: ids
IDS = Type("ids")  # encoded text, to extend a !kv

NAMES = ("prompt", "text", "choice", "bool", "int", "float", "list", "json", "any", "image",
         "scores", "meta", "kv", "ids")


def choice(*texts: str) -> Type:
    """The type of a text that is one of `texts`."""
    return Type("choice", texts)


def list_of(element: Type) -> Type:
    return Type("list", (element,))


def is_text(t: Type) -> bool:
    """Whether a value of this type can be appended to a prompt."""
    return t.name in ("text", "choice")


def of_literal(value: object) -> Type:
    """The type of a Python literal used as an operand."""
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, str):
        return TEXT
    if isinstance(value, int):
        return INT
    if isinstance(value, float):
        return FLOAT
    return JSON
