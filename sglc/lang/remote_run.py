"""Programs that run on a server as one unit: what is sent, and the state that comes back."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from sglc import errors
from sglc.backends.sent_rows import Sent
from sglc.backends.wire import NotPlain, decode
from sglc.config import RunOptions
from sglc.errors import EngineError, ImageError, LanguageError, SglcError
from sglc.ir.bags import text_counts
from sglc.ir.printer import print_module
from sglc.lang.state import ProgramState, unknown_variable

_HERE = ("num_api_spec_tokens", "seed", "skip_special_tokens",
         "spaces_between_special_tokens", "stream")  # options that say nothing to the server
_REFUSED = ("stop_regex", "regex", "json_schema", "ebnf", "dtype")
_PYTHON = ("ValueError", "TypeError", "KeyError", "IndexError", "ZeroDivisionError",
           "OverflowError", "AttributeError")


class RemoteState(ProgramState):
    """The state of a run on a server: reading it waits for the answer."""

    __slots__ = ("_future", "_index", "_names", "_row", "seed")

    def __init__(self, future: Future[list[dict[str, Any]]], index: int, seed: int,
                 names: tuple[Any, ...]) -> None:
        self._future = future
        self._index = index
        self._names = names
        self._row: dict[str, Any] | None = None
        self.seed = seed

    def _settled(self, timeout: float | None = None) -> dict[str, Any]:
        """The row's outcome; raises what the call raised."""
        if self._row is None:
            try:
                row = dict(self._future.result(timeout)[self._index])
            except NotYet:
                raise TimeoutError(f"no answer within {timeout} s") from None
            for name in ("variables", "metas"):
                row[name] = {decode(k): decode(v) for k, v in row.get(name, ())}
            row["names"] = list(map(decode, row.get("names", row["variables"])))
            row["returned"] = decode(row.get("returned"))
            self._row = row
        return self._row

    def _done(self) -> dict[str, Any]:
        row = self._settled()
        if row["error"] is not None:
            raise _exception(row["error"])
        return row

    @property
    def ret_value(self) -> Any:
        """What the body returned."""
        return self._done()["returned"]

    def get_var(self, name: str | None, timeout: float | None = None) -> Any:
        variables = self._settled(timeout)["variables"]
        if name not in variables:
            self._done()
            raise unknown_variable(name, list(variables))
        return variables[name]

    def get_meta_info(self, name: str | None, timeout: float | None = None) -> Any:
        row = self._settled(timeout)
        if name not in row["metas"] and name not in row["variables"]:
            self._done()
        return row["metas"].get(name)

    def _prompt(self) -> dict[str, Any]:
        """The row's outcome, if it has a prompt: that of a body that raised is what it was then."""
        row = self._settled()
        return row if row.get("text") is not None else self._done()

    def text(self) -> str:
        return str(self._prompt()["text"])

    def token_ids(self) -> list[int]:
        return list(self._prompt()["token_ids"])

    def messages(self) -> list[dict[str, str]]:
        return [dict(m) for m in self._prompt()["messages"]]

    def sync(self) -> None:
        self._done()

    def error(self) -> BaseException | None:
        try:
            self._done()
        except Exception as e:
            return e
        return None

    def variable_names(self) -> list[Any]:
        if not self._future.done() or self._future.exception() is not None:
            return list(self._names)
        return list(self._settled()["names"])

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        yield self.text() if var_name is None else str(self.get_var(var_name))

    def __iadd__(self, other: Any) -> RemoteState:
        raise LanguageError("SGLC008", "a run on a server cannot be continued here",
                            fixes=("put what follows into the program",
                                   "run with mode=\"eager\""))


def start_remote(program: Any, backend: Any, rows: list[dict[str, Any]], options: RunOptions,
                 seed: int, numbers: Sequence[int]) -> list[RemoteState | None]:
    """Send rows to a backend that takes programs.  None for a row that cannot go there as one
    unit (it calls Python, its values are no plain data, an image cannot be read): it runs here.
    More rows than the server takes at a time go there one part after the other.

    numbers: the rows' numbers, on which sampling depends.
    """
    start = getattr(backend, "start_program", None)
    said = _options(options)
    states: list[RemoteState | None] = [None] * len(rows)
    if start is None or said is None:
        return states
    cache, checked = program.compiler(), set[Any]()
    groups: dict[Any, Sent] = {}
    texts: dict[Any, str] = {}  # of the programs
    settings = program.settings
    counts = settings.batch_texts(rows)
    for index, values in enumerate(rows):
        variant = cache.variant(values, checked)
        if variant.trace is None or variant.trace.breaks or variant.trace.calls:
            continue
        if variant not in groups:
            module = variant.trace.module
            texts[variant] = print_module(module, locs=False)
            most = backend.most.bytes - len(json.dumps(texts[variant]))
            groups[variant] = Sent(next(iter(module.programs.values())), replace(
                backend.most, bytes=most if counts is None else most // 2))
        with suppress(NotPlain, ImageError):
            groups[variant].add(index, values)
    for variant, sent in groups.items():
        common = {
            "ir": texts[variant], "options": said, "seed": seed,
            "level": settings.level, "without": list(settings.without),
            "outputs": None if settings.outputs is None else list(settings.outputs)}
        futures = start([{**common, "rows": part.rows, "images": part.images.files,
                          "batch": None if counts is None else {
                              t: counts[t] for t in text_counts([rows[i] for i in part.indices])},
                          "row_numbers": [numbers[i] for i in part.indices]}
                         for part in sent.parts])
        if futures is None:
            return states
        for part, future in zip(sent.parts, futures, strict=True):
            for at, index in enumerate(part.indices):
                states[index] = RemoteState(future, at, seed, variant.trace.names)
    return states


def _options(options: RunOptions) -> dict[str, Any] | None:
    """The options that differ from the defaults; None if one cannot be sent."""
    default, out = RunOptions(), dict[str, Any]()
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in _HERE or value == getattr(default, field.name):
            continue
        if field.name in _REFUSED:
            return None
        out[field.name] = list(value) if isinstance(value, tuple) else value
    return out


def _exception(said: Mapping[str, Any]) -> BaseException:
    """The error that the server told of."""
    name, code, message = str(said["type"]), said["code"], str(said["message"])
    if code in errors.CODES:
        kind = getattr(errors, name, EngineError)
        if not (isinstance(kind, type) and issubclass(kind, SglcError)):
            kind = EngineError
        return kind(code, message)
    if name in _PYTHON:
        found: BaseException = getattr(builtins, name)(message)
        return found
    return EngineError("SGLC503", f"the server failed: {name}: {message}")
