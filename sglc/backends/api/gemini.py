"""Google's Gemini models, on Vertex AI or the Gemini API, through the `google-genai` SDK."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sglc.backends.api.asking import Answer, Ask, Choice, Reply, api_error, samples
from sglc.backends.api.capabilities import Capabilities
from sglc.backends.api.sdk import closing, import_sdk, problem
from sglc.backends.api.target import ApiBackend
from sglc.backends.api.turns import turns
from sglc.config import RunOptions
from sglc.errors import ApiError, LanguageError
from sglc.tokens.text_prompt import Conversation

_NAME = "Gemini"
_OPTIONS = frozenset(("top_p", "top_k", "frequency_penalty", "presence_penalty", "seed",
                      "json_schema"))
_SAMPLING = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty")
_DEFAULT = RunOptions()
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}


class VertexAI(ApiBackend):
    """A Gemini model.

    project, location: of Vertex AI (by default from GCP_PROJECT_ID and GCP_LOCATION, as SGLang
        has them, or what the SDK finds).  api_key: instead of those.  vertexai=False: the Gemini
        API, with a key (by default from GEMINI_API_KEY).
    max_retries, timeout: the SDK's own retries (429, 5xx), and seconds a try.
    max_concurrent: calls under way at once.
    continues: the model goes on with a last model message that is begun.
    safety_settings: as the SDK takes them.
    Text outside of messages is sent as one user message (as SGLang does).

    Raises LanguageError SGLC010 without the SDK ("vertex" extra) or without credentials.
    """

    def __init__(self, model_name: str, *, project: str | None = None,
                 location: str | None = None, api_key: str | None = None,
                 vertexai: bool = True, base_url: str | None = None, max_retries: int = 2,
                 timeout: float = 600.0, max_concurrent: int = 64, continues: bool = False,
                 safety_settings: Any = None) -> None:
        sdk = import_sdk("google.genai", "vertex")
        http: dict[str, Any] = {"timeout": int(timeout * 1000),
                                "retry_options": {"attempts": max_retries + 1}}
        if base_url is not None:
            http["base_url"] = base_url
        where: dict[str, Any] = {"api_key": api_key} if api_key is not None else {}
        if vertexai and api_key is None:
            where = {"project": project or os.environ.get("GCP_PROJECT_ID"),
                     "location": location or os.environ.get("GCP_LOCATION")}
        try:
            self.client = sdk.Client(vertexai=vertexai, http_options=http, **where)
        except Exception as error:  # the SDK has no common base for what is missing
            raise LanguageError("SGLC010", "the Gemini client cannot be made", why=str(error)[:300],
                                fixes=("give project= and location=, or api_key=",)) from None
        can = Capabilities(_NAME, _OPTIONS, max_stops=5, text_as_user=True, continues=continues)
        api = _Content(self.client, model_name, can, safety_settings)
        super().__init__(api, max_concurrent=max_concurrent)
        self.model_name = model_name


class _Content:
    def __init__(self, client: Any, model: str, can: Capabilities, safety: Any) -> None:
        self.client = client
        self.model = model
        self.can = can
        self.safety = safety

    async def generate(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        # Not every model gives more than one sample a call.
        return await samples(lambda: self._one(ask, on_text), ask.n)

    async def _one(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        arguments = self._arguments(ask)
        models = self.client.aio.models
        if on_text is None:
            found = await models.generate_content(**arguments)
            text, reason = _read(found)
            return _reply(text, reason, found)
        parts: list[str] = []
        reason, last = None, None
        stream = await models.generate_content_stream(**arguments)
        async with closing(stream):
            async for chunk in stream:
                text, said = _read(chunk)
                reason, last = said or reason, chunk
                parts.append(text)
                on_text(text)
        if reason is None:
            raise api_error(f"the stream of {_NAME} broke off", fixes=("run again",))
        return _reply("".join(parts), reason, last)

    def _arguments(self, ask: Ask) -> dict[str, Any]:
        options = ask.options
        said = turns(ask.conversation, _NAME)
        config: dict[str, Any] = {"max_output_tokens": ask.max_tokens}
        for name in _SAMPLING:
            if getattr(options, name) != getattr(_DEFAULT, name):
                config[name] = getattr(options, name)
        if options.seed is not None:
            config["seed"] = options.seed
        if said.system:
            config["system_instruction"] = said.system
        if ask.stop:
            config["stop_sequences"] = list(ask.stop)
        if self.safety is not None:
            config["safety_settings"] = self.safety
        if options.json_schema is not None:
            import json

            config |= {"response_mime_type": "application/json",
                       "response_json_schema": json.loads(options.json_schema)}
        contents = [{"role": "model" if role == "assistant" else role, "parts": [{"text": text}]}
                    for role, text in said.messages]
        return {"model": self.model, "contents": contents, "config": config}

    async def choose(self, conversation: Conversation, choices: tuple[str, ...],
                     method: str) -> Choice:
        raise AssertionError("a messages API is not asked to choose")

    def problem(self, error: Exception) -> ApiError:
        return problem(_NAME, error)

    async def close(self) -> None:
        await self.client.aio.aclose()


def _read(found: Any) -> tuple[str, str | None]:
    """The text of an answer or a part of one, and why it ended, if it did."""
    if not found.candidates:
        feedback = getattr(found, "prompt_feedback", None)
        blocked = getattr(feedback, "block_reason", None)
        if blocked:
            raise api_error(f"{_NAME} blocked the prompt", RuntimeError(str(blocked)))
        return "", None
    candidate = found.candidates[0]
    parts = (candidate.content.parts if candidate.content is not None else None) or ()
    text = "".join([p.text for p in parts if p.text and not p.thought])
    reason = candidate.finish_reason
    return text, None if reason is None else getattr(reason, "value", str(reason))


def _reply(text: str, reason: str | None, last: Any) -> Reply:
    finish = _FINISH.get(reason or "STOP", (reason or "STOP").lower())
    usage = getattr(last, "usage_metadata", None)
    if usage is None:
        return Reply([Answer(text, finish)])
    written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return Reply([Answer(text, finish)], usage.prompt_token_count or 0,
                 usage.cached_content_token_count or 0, written)
