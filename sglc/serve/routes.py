"""Every route: what the router serves, who may call it, and what the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web

from sglc.serve import info
from sglc.serve.chat import chat
from sglc.serve.completions import completions
from sglc.serve.generate import generate
from sglc.serve.programs import programs
from sglc.serve.requests import ChatRequest, CompletionRequest, GenerateRequest, ProgramRequest

Access = Literal["open", "key", "admin"]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    body: the model of its JSON body, None if it has none.  access: "open" to all, for holders
    of an API key, or of the admin key where there is one.  work: whether it uses the model, and
    so is refused while draining.  media: what it answers with.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[web.StreamResponse]]
    summary: str
    body: type[Any] | None = None
    access: Access = "key"
    work: bool = False
    media: tuple[str, ...] = ("application/json",)


_STREAMS = ("application/json", "text/event-stream")

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", info.health, "Whether the server and its engine are alive.",
          access="open"),
    Route("GET", "/ready", info.ready, "Whether new requests are taken.", access="open"),
    Route("GET", "/health_generate", info.health_generate, "Generate one token.", work=True),
    Route("POST", "/generate", generate, "Continue prompts (SGLang's API).", GenerateRequest,
          work=True, media=_STREAMS),
    Route("POST", "/v1/completions", completions, "Continue prompts (OpenAI's API).",
          CompletionRequest, work=True, media=_STREAMS),
    Route("POST", "/v1/chat/completions", chat, "Answer a chat (OpenAI's API).", ChatRequest,
          work=True, media=_STREAMS),
    Route("POST", "/v1/programs", programs, "Run a compiled program on a batch of rows.",
          ProgramRequest, work=True),
    Route("GET", "/v1/models", info.models, "The models here."),
    Route("GET", "/get_model_info", info.model_info, "The model (SGLang's API)."),
    Route("GET", "/model_info", info.model_info, "The model (SGLang's later name)."),
    Route("GET", "/get_server_info", info.server_info, "Settings and counters."),
    Route("GET", "/server_info", info.server_info, "Settings and counters."),
    Route("GET", "/get_server_args", info.server_args, "Settings (SGLang's older name)."),
    Route("GET", "/flush_cache", info.flush_cache, "Forget cached KV that nothing uses.",
          access="admin", media=("text/plain",)),
    Route("POST", "/flush_cache", info.flush_cache, "Forget cached KV that nothing uses.",
          access="admin", media=("text/plain",)),
    Route("GET", "/metrics", info.metrics, "Counters for Prometheus.", media=("text/plain",)),
    Route("GET", "/openapi.json", info.openapi, "This API's description."),
)
