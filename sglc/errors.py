"""Diagnostics: every error and remark a user can see, with a code, a place, a reason and a way out.

This module knows no other part of sglc; every part may import it.
"""

from __future__ import annotations

import difflib
import linecache
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import CodeType, TracebackType

# code -> one-line title.  Families: 0xx language use, 1xx tracing, 2xx IR, 3xx tokens and
# templates, 4xx remarks on missed optimisations, 5xx run time.
CODES: dict[str, str] = {
    "SGLC001": "a program was called with the wrong arguments",
    "SGLC002": "this value cannot be appended to a prompt",
    "SGLC003": "a variable was read that no part of the program produces",
    "SGLC004": "a generation parameter is out of range",
    "SGLC005": "choices must be a non-empty list of non-empty, distinct strings",
    "SGLC006": "the regular expression is not usable as a constraint",
    "SGLC007": "chat roles are opened and closed out of order",
    "SGLC008": "this feature is not supported",
    "SGLC009": "the program definition is not usable",
    "SGLC010": "no backend can run the program",
    "SGLC011": "the schema or grammar cannot be enforced",
    "SGLC012": "the remote API cannot do this",
    "SGLC110": "the program needs a value while it is being traced",
    "SGLC111": "the tracer cannot follow this construct",
    "SGLC112": "a call of unknown purity is in the program",
    "SGLC113": "an object from outside the program is modified",
    "SGLC114": "the program's source is not available",
    "SGLC115": "too many variants of one program were compiled",
    "SGLC120": "the program has more paths or steps than the tracer follows",
    "SGLC201": "the IR is malformed",
    "SGLC202": "the IR text cannot be parsed",
    "SGLC203": "a pass broke the IR",
    "SGLC301": "program text looks like a control token and is treated as plain text",
    "SGLC310": "the chat template does not render turns in a stable way",
    "SGLC311": "the chat template is unknown or does not render",
    "SGLC320": "the tokenizer cannot be read",
    "SGLC330": "choices collide after tokenization",
    "SGLC401": "text known only at run time stands before constant text that rows could share",
    "SGLC404": "two equal generations are not merged, because they are sampled",
    "SGLC412": "the result of a generation is never used",
    "SGLC420": "the choices of a select differ much in length, and its score favours long ones",
    "SGLC421": "a comparison with a text that the constraint rules out",
    "SGLC430": "forks run one after another",
    "SGLC501": "the prompt does not fit the model's context",
    "SGLC502": "the prompt does not fit the KV pool",
    "SGLC503": "the engine stopped",
    "SGLC504": "the model cannot be loaded",
    "SGLC505": "the constraint cannot be satisfied by this tokenizer",
    "SGLC506": "the run was cancelled",
    "SGLC507": "the request to the engine is malformed",
    "SGLC508": "the generated text is no value of its schema",
    "SGLC509": "the remote API did not answer as it should",
    "SGLC510": "the image cannot be used",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a user's source file (1-based line and column)."""

    file: str
    line: int
    col: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message for a user: what happened, where, why, what it means, and how to fix it."""

    code: str
    what: str
    place: Place | None = None
    why: str = ""
    effect: str = ""
    fixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"SGLC\d{3}", self.code) or self.code not in CODES:
            raise ValueError(f"unknown diagnostic code {self.code!r}")

    def __str__(self) -> str:
        lines = [f"{self.code} {self.what}"]
        if self.place is not None:
            lines.append(f"  --> {self.place}")
            lines.extend(excerpt(self.place))
        if self.why:
            lines.append(f"  Why: {self.why}")
        if self.effect:
            lines.append(f"  Effect: {self.effect}")
        lines.extend(f"  Fix {i}: {fix}" for i, fix in enumerate(self.fixes, 1))
        return "\n".join(lines)


def meant(word: str, known: Iterable[str]) -> str:
    """", did you mean ...?" for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


_WIDTH = 96  # of source shown in an excerpt


def excerpt(place: Place) -> list[str]:
    """The line of source at a place with a caret under its column; empty if it cannot be read."""
    try:
        linecache.checkcache(place.file)
        source = linecache.getline(place.file, place.line)
    except ValueError:  # no file can have such a name
        return []
    return marked(source, place.line, place.col) if source.strip() else []


def marked(source: str, line: int, col: int) -> list[str]:
    """A numbered line of source, its middle if it is long, over a caret under column `col`.

    A column in the indentation (as where only the line is known) means its end.
    """
    source = source.rstrip()
    indent = len(source) - len(source.lstrip())
    at = min(max(col - 1, indent), len(source))
    first = max(0, min(at - 2 * _WIDTH // 3, len(source) - _WIDTH))
    shown = "".join([c if c == "\t" or c.isprintable() else "\ufffd"
                     for c in source[first:first + _WIDTH]])
    blank = "".join(["\t" if c == "\t" else " " * _columns(c) for c in shown[:at - first]])
    return [f"  {line} | {shown}", f"  {' ' * len(str(line))} | {blank}^"]


def _columns(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


_PACKAGE = str(Path(__file__).parent) + os.sep
_LIBRARY = str(Path(os.__file__).parent) + os.sep


def users_place(traceback: TracebackType | None) -> Place | None:
    """The innermost place of a traceback that is neither in sglc nor in Python's library."""
    found: TracebackType | None = None
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        library = file.startswith(_LIBRARY) and "site-packages" not in file
        if not (library or file.startswith((_PACKAGE, "<frozen "))):
            found = traceback
        traceback = traceback.tb_next
    return None if found is None else place_in(
        found.tb_frame.f_code, found.tb_lasti, found.tb_lineno)


def place_in(code: CodeType, instruction: int, line: int) -> Place:
    """Where an instruction of some code (by its byte offset) stands; `line` is its line."""
    column = 1  # Python 3.10 has lines only
    if hasattr(code, "co_positions"):
        spot = next(islice(code.co_positions(), instruction // 2, None), None)
        column = 1 if spot is None else (spot[2] or 0) + 1
    source = linecache.getline(code.co_filename, line)
    if not source.isascii():  # Python counts bytes
        column = len(source.encode()[: column - 1].decode("utf-8", "replace")) + 1
    return Place(code.co_filename, line, column)


class SglcError(Exception):
    """The base of every error sglc raises on purpose; `.diagnostic` holds the parts."""

    def __init__(self, code: str, what: str, *, place: Place | None = None, why: str = "",
                 effect: str = "", fixes: tuple[str, ...] | list[str] = ()) -> None:
        self.diagnostic = Diagnostic(code, what, place, why, effect, tuple(fixes))
        super().__init__(f"{code} {what}")

    @property
    def code(self) -> str:
        return self.diagnostic.code

    def locate(self, place: Place | None) -> None:
        """Give the error a place if it has none."""
        if self.diagnostic.place is None and place is not None:
            self.diagnostic = replace(self.diagnostic, place=place)

    def __str__(self) -> str:
        return str(self.diagnostic)


class LanguageError(SglcError, ValueError):
    """The program uses the language wrongly (a bad argument, a value that is no prompt part)."""


class ArgumentError(SglcError, TypeError):
    """A program was called with arguments it does not take."""


class UnknownVariable(SglcError, KeyError):
    """A variable was read that the program never produces."""


class TraceError(SglcError):
    """The tracer cannot capture the program (with `fullgraph=True`, or a broken trace)."""


class TailNotTraced(TraceError):
    """The rest of a program, after a break, cannot be traced."""


class IRError(SglcError):
    """The IR is malformed: it does not verify, or its text does not parse."""


class TokenError(SglcError, ValueError):
    """A tokenizer or a chat template is unusable."""


class GrammarError(SglcError, ValueError):
    """A regex, schema or grammar cannot be compiled or enforced."""


class EngineError(SglcError, RuntimeError):
    """A request or the engine failed at run time."""


class SchemaError(SglcError, ValueError):
    """A generated text is no value of the type that `gen(schema=...)` asked for; `.text` is the
    text, as far as it was written."""

    text: str = ""


class CapabilityError(LanguageError):
    """The backend's API cannot do what the program asks for."""


class ApiError(EngineError):
    """A remote API refused, failed, or gave no usable answer; `.status` is the HTTP status, if
    there was one."""

    status: int | None = None


class ModelError(SglcError, RuntimeError):
    """A model cannot be found or loaded."""


class ImageError(SglcError, ValueError):
    """An image cannot be read, or is not one."""


class Cancelled(EngineError):
    """The request was cancelled before it finished."""


class SglcWarning(UserWarning):
    """A remark that does not stop the program; `.diagnostic` holds the parts."""

    def __init__(self, code: str, what: str, *, place: Place | None = None, why: str = "",
                 effect: str = "", fixes: tuple[str, ...] | list[str] = ()) -> None:
        self.diagnostic = Diagnostic(code, what, place, why, effect, tuple(fixes))
        super().__init__(f"{code} {what}")

    def __str__(self) -> str:
        return str(self.diagnostic)
