"""Values that generated texts stand for: what `gen(schema=Model)` gives.

The value is made of the text when somebody first reads it, on the reader's thread, once.  Knows
schemas and texts only, no programs and no engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sglc.errors import LanguageError, Place, SchemaError

_SHOWN = 400  # characters of a text in a message


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """How the texts of one gen are read.

    schema: a type that pydantic knows.  name, place: the gen's variable and where it stands.
    """

    schema: Any
    name: str | None = None
    place: Place | None = None
    parse: Callable[[str], Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parse", _known(self.schema)[1])

    @property
    def json_schema(self) -> str:
        """The JSON schema of the texts."""
        return _known(self.schema)[0]

    @property
    def type_name(self) -> str:
        return getattr(self.schema, "__name__", None) or str(self.schema)

    def read(self, text: str, meta: dict[str, Any]) -> Any:
        """The value of a text; SchemaError SGLC508 if it has none.  meta: as `get_meta_info`."""
        try:
            return self.parse(text)
        except ValueError as bad:
            raise self._error(text, meta, bad) from bad

    def _error(self, text: str, meta: dict[str, Any], bad: ValueError) -> SchemaError:
        reason = meta["finish_reason"]
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        fixes = ["read state.get_meta_info(...) and the error's .text to see what was written"]
        if reason["type"] == "length":
            why = f"max_tokens={reason['length']} cut it after: {shown!r}"
            fixes.insert(0, "raise max_tokens, or bound the texts and lists of the schema")
        elif reason["type"] == "stop" and isinstance(reason.get("matched"), str) and not _is_json(
                text):
            why = f"the stop {reason['matched']!r} cut it after: {shown!r}"
            fixes.insert(0, "leave out stop=: the schema ends the text")
        else:
            why = f"{_first_line(bad)}, in: {shown!r}"
            fixes.insert(0, "say in the schema what the validators of the type ask for")
        what = "a text" if self.name is None else f"the text of {self.name!r}"
        error = SchemaError("SGLC508", f"{what} is no {self.type_name}", place=self.place, why=why,
                            fixes=fixes)
        error.text = text
        return error


class TypedText:
    """The texts that a gen wrote (one for each sample), and the values they stand for."""

    __slots__ = ("_error", "_lock", "_value", "many", "metas", "reader", "texts")

    def __init__(self, reader: Reader, texts: Sequence[str], metas: Sequence[dict[str, Any]],
                 many: bool) -> None:
        self.reader = reader
        self.texts = list(texts)
        self.metas = metas
        self.many = many  # n > 1: the value is a list
        self._lock = threading.RLock()
        self._value: list[Any] | None = None
        self._error: BaseException | None = None

    def get(self) -> Any:
        """The value, made at the first call; the same object, or error, at every call."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._value is None:
                try:
                    self._value = [self.reader.read(text, meta)
                                   for text, meta in zip(self.texts, self.metas, strict=True)]
                except Exception as error:
                    self._error = error
                    raise
            return self._value if self.many else self._value[0]

    def __repr__(self) -> str:
        return f"TypedText({self.reader.type_name}, {self.texts!r})"


def opened(value: Any) -> Any:
    """A variable's value as programs see it.  Raises SchemaError SGLC508."""
    return value.get() if type(value) is TypedText else value


def spelled(value: Any) -> str:
    """A variable's value as the text of a stream."""
    if type(value) is TypedText:
        value = value.texts if value.many else value.texts[0]
    return value if isinstance(value, str) else str(value)


def sample_text(value: Any) -> str:
    """The text that a gen's value adds to its prompt: that of its first sample."""
    texts = value.texts if type(value) is TypedText else value
    return spelled(texts[0]) if type(texts) is list and texts else spelled(texts)


def reader_of(schema: Any, name: str | None, place: Place | None) -> Reader:
    """The reader of a gen; LanguageError SGLC011 for what has no JSON schema."""
    try:
        hash(schema)
        return Reader(schema, name, place)
    except LanguageError:
        raise
    except Exception as bad:
        what = getattr(schema, "__name__", None) or repr(schema)[:100]
        raise LanguageError(
            "SGLC011", f"there is no JSON schema of {what}", place=place, why=_first_line(bad),
            fixes=("give a pydantic model, or a JSON schema as dict or text",)) from bad


@lru_cache(maxsize=1024)
def _known(schema: Any) -> tuple[str, Callable[[str], Any]]:
    """The JSON schema of a type, and the parser of its texts."""
    from sglc.grammar.schema import schema_text, value_parser

    return schema_text(schema), value_parser(schema)


def _is_json(text: str) -> bool:
    import json

    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _first_line(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic's: what, and where in the value
        try:
            first = details(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            return f"{where}: {first['msg']}" if where else str(first["msg"])
        except Exception:
            pass
    diagnostic = getattr(error, "diagnostic", None)
    return diagnostic.what if diagnostic is not None else str(error).split("\n")[0]
