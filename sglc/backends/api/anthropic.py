"""Anthropic's Messages API, through the `anthropic` SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglc.backends.api.asking import Answer, Ask, Choice, Reply, api_error, samples
from sglc.backends.api.capabilities import Capabilities
from sglc.backends.api.sdk import closing, import_sdk, problem
from sglc.backends.api.target import ApiBackend
from sglc.backends.api.turns import Begun, turns
from sglc.config import RunOptions
from sglc.errors import ApiError, LanguageError
from sglc.tokens.text_prompt import Conversation

_NAME = "Anthropic"
_OPTIONS = frozenset(("top_p", "top_k", "json_schema", "no_stop_trim"))
# Not among the SDK's own arguments since 2.x; models that do not take them refuse with a 400.
_SAMPLING = ("temperature", "top_p", "top_k")
_DEFAULT = RunOptions()
_KEYS = ("api_key", "auth_token", "credentials")  # what an SDK client may have found
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class Anthropic(ApiBackend):
    """A Claude model.

    api_key: by default from ANTHROPIC_API_KEY.  base_url: another server with this API.
    max_retries, timeout: the SDK's own retries (429, 5xx, lost connections), and seconds a try.
    max_concurrent: calls under way at once.
    continues: whether the model goes on with a last assistant message that is begun; newer models
        refuse that, and then it must be False.
    Text outside of messages is sent as one user message (as SGLang does).  Blank stop strings
    (a newline), which the API refuses, are cut off here.  Other keywords are the SDK client's.

    Raises LanguageError SGLC010 without the SDK ("anthropic" extra) or without a key.
    """

    def __init__(self, model_name: str, *, api_key: str | None = None,
                 base_url: str | None = None, max_retries: int = 2, timeout: float = 600.0,
                 max_concurrent: int = 64, continues: bool = True, **client: Any) -> None:
        sdk = import_sdk("anthropic", "anthropic")
        if base_url is not None:
            client["base_url"] = base_url
            api_key = api_key or "EMPTY"
        if api_key is not None:
            client["api_key"] = api_key
        self.client = sdk.AsyncAnthropic(max_retries=max_retries, timeout=timeout, **client)
        if not client and not any(getattr(self.client, name, None) for name in _KEYS):
            # The SDK itself says so at the first call only.
            raise LanguageError("SGLC010", "the Anthropic client cannot be made",
                                why="there is no API key",
                                fixes=("set ANTHROPIC_API_KEY, or give api_key=",))
        can = Capabilities(_NAME, _OPTIONS, max_stops=8, blank_stops=False, text_as_user=True,
                           continues=continues, max_temperature=1.0)
        super().__init__(_Messages(self.client, model_name, can), max_concurrent=max_concurrent)
        self.model_name = model_name


class _Messages:
    def __init__(self, client: Any, model: str, can: Capabilities) -> None:
        self.client = client
        self.model = model
        self.can = can

    async def generate(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        # The API gives one sample a call.
        return await samples(lambda: self._one(ask, on_text), ask.n)

    async def _one(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        arguments, begun = self._arguments(ask)
        if on_text is None:
            message = await self.client.messages.create(**arguments)
            text = "".join([b.text for b in message.content if b.type == "text"])
            return self._reply(begun.piece(text), message.stop_reason, message.stop_sequence,
                               message.usage, ask)
        stream = await self.client.messages.create(stream=True, **arguments)
        parts: list[str] = []
        reason = matched = None
        used: dict[str, int] = {}
        async with closing(stream):
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    parts.append(begun.piece(event.delta.text))
                    on_text(parts[-1])
                elif event.type == "message_start":
                    _add(used, event.message.usage)
                elif event.type == "message_delta":
                    reason, matched = event.delta.stop_reason, event.delta.stop_sequence
                    _add(used, event.usage)
        if reason is None:
            raise api_error(f"the stream of {_NAME} broke off", fixes=("run again",))
        return self._reply("".join(parts), reason, matched, used, ask)

    def _arguments(self, ask: Ask) -> tuple[dict[str, Any], Begun]:
        options = ask.options
        said = turns(ask.conversation, _NAME)
        messages = [{"role": role, "content": text} for role, text in said.messages]
        begun = Begun("")
        if messages[-1]["role"] == "assistant":  # the API refuses blanks at its end
            whole = messages[-1]["content"]
            messages[-1]["content"] = whole.rstrip()
            begun = Begun(whole[len(whole.rstrip()):])
            if not messages[-1]["content"]:
                messages.pop()
        arguments: dict[str, Any] = {"model": self.model, "messages": messages,
                                     "max_tokens": ask.max_tokens}
        if said.system:
            arguments["system"] = said.system
        if ask.stop:
            arguments["stop_sequences"] = list(ask.stop)
        body = {name: getattr(options, name) for name in _SAMPLING
                if getattr(options, name) != getattr(_DEFAULT, name)}
        if body:
            arguments["extra_body"] = body
        if options.json_schema is not None:
            import json

            arguments["output_config"] = {"format": {
                "type": "json_schema", "schema": json.loads(options.json_schema)}}
        return arguments, begun

    @staticmethod
    def _reply(text: str, reason: str | None, matched: str | None, usage: Any, ask: Ask) -> Reply:
        used: dict[str, int] = {}
        _add(used, usage)
        finish = _FINISH.get(reason or "end_turn", reason or "stop")
        if matched is not None and ask.options.no_stop_trim:
            text += matched
        read, written = used.get("cache_read_input_tokens", 0), used.get(
            "cache_creation_input_tokens", 0)
        return Reply([Answer(text, finish, matched)],
                     used.get("input_tokens", 0) + read + written, read,
                     used.get("output_tokens", 0))

    async def choose(self, conversation: Conversation, choices: tuple[str, ...],
                     method: str) -> Choice:
        raise AssertionError("a messages API is not asked to choose")

    def problem(self, error: Exception) -> ApiError:
        return problem(_NAME, error)

    async def close(self) -> None:
        await self.client.close()


def _add(used: dict[str, int], usage: Any) -> None:
    """Note the counts that an event says; later ones stand for all so far."""
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens",
                 "cache_creation_input_tokens"):
        value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
        if value is not None:
            used[name] = value
