"""What the server knows of one HTTP request while it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Context:
    """began, deadline: `monotonic()` times.  headers: of every answer.  code: of its error."""

    id: str
    began: float
    deadline: float
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first: float | None = None  # when a stream wrote its first text

    def wrote(self) -> None:
        """Text of a stream has come."""
        if self.first is None:
            self.first = monotonic()

    def count(self, usage: Mapping[str, Any]) -> None:
        """Note the tokens of an answer, for the log."""
        self.prompt_tokens = usage["prompt_tokens"]
        self.completion_tokens = usage["completion_tokens"]


CONTEXT: web.RequestKey[Context] = web.RequestKey("sglc", Context)
