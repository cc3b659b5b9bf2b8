"""What the server knows of one HTTP request while it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic

from aiohttp import web

from sglc.config import RunOptions
from sglc.runtime.request import Result


@dataclass(slots=True)
class Context:
    """began, deadline: `monotonic()` times.  headers: of every answer.  code: of its error.
    holds: what it holds until it is answered.

    Of model requests also what was asked for, and what it came to.
    """

    id: str
    began: float
    deadline: float
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    holds: ExitStack = field(default_factory=ExitStack)
    space: int | None = None  # of the engine, whose KV may be shared
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    first: float | None = None  # when a stream wrote its first text
    response_id: str | None = None
    options: RunOptions | None = None
    finish_reasons: tuple[str, ...] = ()

    def asks(self, response_id: str, options: RunOptions) -> None:
        """Note what a model request asks for."""
        self.response_id, self.options = response_id, options

    def wrote(self) -> None:
        """Text of a stream has come."""
        if self.first is None:
            self.first = monotonic()

    def count(self, results: Sequence[Result], prompt_tokens: int) -> None:
        """Note what an answer came to."""
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = sum(r.output_tokens for r in results)
        self.cached_tokens = sum(r.cached_tokens for r in results)
        self.finish_reasons = tuple([r.finish_reason for r in results])


CONTEXT: web.RequestKey[Context] = web.RequestKey("sglc", Context)
