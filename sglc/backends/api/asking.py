"""What one HTTP call asks an API for, and what it answers: plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sglc.backends.api.capabilities import Capabilities
from sglc.config import RunOptions
from sglc.errors import ApiError
from sglc.tokens.text_prompt import Conversation


@dataclass(frozen=True, slots=True)
class Ask:
    """A generation.

    stop: the stop strings to send (of `options`, or none).  n: how many samples.  token_texts:
    the texts of the single tokens are wanted, where the API has them.
    """

    conversation: Conversation
    options: RunOptions
    max_tokens: int
    stop: tuple[str, ...]
    n: int = 1
    token_texts: bool = False


@dataclass(slots=True)
class Answer:
    """One sample.

    finish: "stop" (a stop string or the model's end, which most APIs do not tell apart), "length",
    or the API's own word for why it gave up.  matched: the stop string, if said.  tokens:
    (text, log-probability) of each token, if known; top: the best ones at each, as such pairs.
    """

    text: str = ""
    finish: str = "stop"
    matched: str | None = None
    tokens: list[tuple[str, float | None]] | None = None
    top: list[list[tuple[str, float | None]]] = field(default_factory=list)


@dataclass(slots=True)
class Reply:
    """What a call gave, and what it cost in tokens (all samples together)."""

    answers: list[Answer]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


async def samples(one: Callable[[], Awaitable[Reply]], n: int) -> Reply:
    """`n` samples of an API that gives one a call, as one reply."""
    replies = await asyncio.gather(*[one() for _ in range(n)])
    return Reply([a for r in replies for a in r.answers],
                 sum(r.prompt_tokens for r in replies), sum(r.cached_tokens for r in replies),
                 sum(r.output_tokens for r in replies))


class Api(Protocol):
    """One kind of API.  Its methods run on the backend's event loop."""

    can: Capabilities

    async def generate(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        """Ask; with `on_text`, as a stream (of one sample)."""
        ...

    async def choose(self, conversation: Conversation, choices: tuple[str, ...],
                     method: str) -> Choice:
        """A select; CapabilityError SGLC012 where the API has no means for it."""
        ...

    def problem(self, error: Exception) -> ApiError:
        """An error of the SDK or of its answer as one of ours."""
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Choice:
    """What a select came to, and what the calls for it cost."""

    index: int
    meta: dict[str, Any]
    calls: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def api_error(what: str, error: BaseException | None = None, *, status: int | None = None,
              fixes: tuple[str, ...] = ()) -> ApiError:
    """ApiError SGLC509; `error` is its cause."""
    why = "" if error is None else f"{type(error).__name__}: {error}"[:500]
    found = ApiError("SGLC509", what, why=why, fixes=fixes)
    found.status = status
    found.__cause__ = error
    return found
