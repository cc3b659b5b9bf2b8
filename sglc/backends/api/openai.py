"""OpenAI's API, and servers that speak it: chat and text completion, through the `openai` SDK."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sglc.backends.api import choosing
from sglc.backends.api.asking import Answer, Ask, Choice, Reply, api_error
from sglc.backends.api.capabilities import Capabilities
from sglc.backends.api.sdk import closing, import_sdk, problem
from sglc.backends.api.target import ApiBackend
from sglc.config import RunOptions
from sglc.errors import ApiError, LanguageError
from sglc.tokens.text_prompt import Conversation, Shown

COMPLETION_MODELS = ("gpt-3.5-turbo-instruct", "babbage-002", "davinci-002")

_SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_DEFAULT = RunOptions()


class OpenAI(ApiBackend):
    """A model of OpenAI, or of any server with its API.

    model_name: as the server knows it.
    api_type: "chat" or "completion"; by default OpenAI's instruct models complete, others chat.
    base_url: another server's, such as "http://localhost:8000/v1".
    api_key: by default from OPENAI_API_KEY; servers at a `base_url` may need none.
    max_retries, timeout: the SDK's own retries (429, 5xx, lost connections), and seconds a try.
    max_concurrent: calls under way at once.
    continues: the server goes on with a last assistant message that is begun; as text, the name
        of its switch for that ("continue_final_message": vLLM, SGLang).  OpenAI's own does not.
    extra_options: options of gens that the server takes beyond OpenAI's, and its names for them:
        `{"regex": "regex", "top_k": "top_k"}`.
    token_texts: ask for log-probabilities with calls that run ahead; their token borders say
        where a gen's `max_tokens` ends.
    select_by: how a completion model chooses: "echo" (log-probabilities of the prompt; servers at
        a `base_url`) or "logit_bias" (SGLang's way with OpenAI's own; needs a tokenizer).
    tokenizer: text -> ids for that, by default tiktoken's for the model.
    chat_template: of roles on a completion model (SGLang's "default").
    Other keywords (organization=, default_headers=, ...) are the SDK client's; with `is_azure`
    it is the one for Azure.  `is_chat_model=` is another way to give api_type.

    Raises LanguageError SGLC010 without the SDK ("openai" extra) or without a key.
    """

    def __init__(self, model_name: str, *, api_type: str | None = None,
                 is_chat_model: bool | None = None, base_url: str | None = None,
                 api_key: str | None = None, max_retries: int = 2, timeout: float = 600.0,
                 max_concurrent: int = 64, continues: bool | str = False,
                 extra_options: Mapping[str, str] | None = None, token_texts: bool = True,
                 select_by: str | None = None,
                 tokenizer: Callable[[str], Sequence[int]] | None = None,
                 chat_template: Any = None, is_azure: bool = False, **client: Any) -> None:
        if api_type is None:
            chat = model_name not in COMPLETION_MODELS if is_chat_model is None else is_chat_model
            api_type = "chat" if chat else "completion"
        if api_type not in ("chat", "completion"):
            raise LanguageError("SGLC004", f'api_type is "chat" or "completion", not {api_type!r}')
        if select_by not in (None, *choosing.WAYS):
            raise LanguageError("SGLC004", f"select_by is one of {', '.join(choosing.WAYS)}, not "
                                f"{select_by!r}")
        extra = dict(extra_options or {})
        if unknown := [name for name in extra if not hasattr(_DEFAULT, name)]:
            raise LanguageError("SGLC004", f"extra_options names {unknown[0]!r}, which is no "
                                "option of a gen")
        sdk = import_sdk("openai", "openai")
        if base_url is not None:
            client["base_url"] = base_url
            api_key = api_key or "EMPTY"
        if api_key is not None:
            client["api_key"] = api_key
        make = sdk.AsyncAzureOpenAI if is_azure else sdk.AsyncOpenAI
        try:
            self.client = make(max_retries=max_retries, timeout=timeout, **client)
        except sdk.OpenAIError as error:
            raise LanguageError("SGLC010", "the OpenAI client cannot be made", why=str(error),
                                fixes=("set OPENAI_API_KEY, or give api_key=",)) from None
        own = base_url is None
        shared = frozenset(("top_p", "frequency_penalty", "presence_penalty", "seed",
                            "return_logprob", "top_logprobs_num", *extra))
        api: _Completion | _Chat
        if api_type == "completion":
            can = Capabilities("OpenAI text completion", shared, messages=False, continues=True)
            api = _Completion(self.client, model_name, can, extra)
            api.token_texts = token_texts
            api.select_by = select_by or ("logit_bias" if own else "echo")
            api.tokenizer = tokenizer
        else:
            can = Capabilities("OpenAI chat", shared | {"json_schema"}, continues=bool(continues),
                               images=True)
            api = _Chat(self.client, model_name, can, extra)
            api.token_texts = token_texts
            # Newer models refuse the old name, and other servers do not know the new one.
            api.limit = "max_completion_tokens" if own else "max_tokens"
            if isinstance(continues, str):
                api.continue_with = {continues: True, "add_generation_prompt": False}
        super().__init__(api, max_concurrent=max_concurrent, chat_template=chat_template)
        self.model_name = model_name


class _OpenAIApi(ABC):
    """What both forms have in common."""

    limit = "max_tokens"
    token_texts = True

    def __init__(self, client: Any, model: str, can: Capabilities,
                 extra: Mapping[str, str]) -> None:
        self.client = client
        self.model = model
        self.can = can
        self.extra = extra

    def arguments(self, ask: Ask, stream: bool) -> dict[str, Any]:
        options = ask.options
        out: dict[str, Any] = {"model": self.model, self.limit: ask.max_tokens}
        for name in _SAMPLING:
            value = getattr(options, name)
            # What is the API's default too is not sent: some models take no other, or none.
            if value != getattr(_DEFAULT, name):
                out[name] = value
        if ask.stop:
            out["stop"] = list(ask.stop)
        if ask.n > 1:
            out["n"] = ask.n
        if options.seed is not None:
            out["seed"] = options.seed
        body = {theirs: getattr(options, ours) for ours, theirs in self.extra.items()
                if getattr(options, ours) != getattr(_DEFAULT, ours)}
        if body:
            out["extra_body"] = body
        if stream:
            out |= {"stream": True, "stream_options": {"include_usage": True}}
        return out

    def reply(self, answers: list[Answer], usage: Any) -> Reply:
        if usage is None:
            return Reply(answers)
        details = getattr(usage, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", None) or 0
        return Reply(answers, usage.prompt_tokens or 0, cached, usage.completion_tokens or 0)

    async def generate(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        create = self.create(ask, on_text is not None)
        if on_text is not None:
            return await self._stream(await create, on_text)
        found = await create
        if not getattr(found, "choices", None):
            raise api_error(f"{self.can.name} gave no answer", fixes=_LOOK)
        answers = [self.answer(choice) for choice in found.choices]
        for choice, answer in zip(found.choices, answers, strict=True):
            answer.finish = choice.finish_reason or "stop"
            matched = (getattr(choice, "model_extra", None) or {}).get("stop_reason")
            answer.matched = matched if isinstance(matched, str) else None
        return self.reply(answers, found.usage)

    async def _stream(self, stream: Any, on_text: Callable[[str], None]) -> Reply:
        parts: list[str] = []
        tokens: list[tuple[str, float | None]] = []
        top: list[list[tuple[str, float | None]]] = []
        finish, usage = None, None
        async with closing(stream):
            async for chunk in stream:
                usage = getattr(chunk, "usage", None) or usage
                for choice in chunk.choices[:1]:
                    piece = self.piece(choice)
                    parts.append(piece.text)
                    on_text(piece.text)
                    tokens += piece.tokens or []
                    top += piece.top
                    finish = choice.finish_reason or finish
        if finish is None:
            raise api_error(f"the stream of {self.can.name} broke off", fixes=_LOOK)
        answer = Answer("".join(parts), finish, None, tokens or None, top)
        return self.reply([answer], usage)

    @abstractmethod
    def create(self, ask: Ask, stream: bool) -> Any:
        """The SDK's call, to be awaited."""

    @abstractmethod
    def answer(self, choice: Any) -> Answer:
        """One sample of a whole answer."""

    @abstractmethod
    def piece(self, choice: Any) -> Answer:
        """What one event of a stream adds."""

    def problem(self, error: Exception) -> ApiError:
        return problem(self.can.name, error)

    async def close(self) -> None:
        await self.client.close()


class _Completion(_OpenAIApi):
    select_by = "echo"
    tokenizer: Callable[[str], Sequence[int]] | None = None

    def create(self, ask: Ask, stream: bool) -> Any:
        arguments = self.arguments(ask, stream)
        if ask.options.return_logprob or ask.options.top_logprobs_num:
            arguments["logprobs"] = ask.options.top_logprobs_num
        elif ask.token_texts and self.token_texts:
            arguments["logprobs"] = 1
        return self.client.completions.create(prompt=ask.conversation.text, **arguments)

    def answer(self, choice: Any) -> Answer:
        out = Answer(choice.text or "")
        found = getattr(choice, "logprobs", None)
        if found is not None and found.tokens:
            logprobs = found.token_logprobs or [None] * len(found.tokens)
            out.tokens = list(zip(found.tokens, logprobs, strict=True))
            out.top = [list((step or {}).items()) for step in found.top_logprobs or ()]
        return out

    piece = answer

    async def choose(self, conversation: Conversation, choices: tuple[str, ...],
                     method: str) -> Choice:
        if self.select_by == "echo":
            return await choosing.by_echo(self.client, self.model, self.can.name,
                                          conversation.text, choices,
                                          method)
        encode = self.tokenizer or choosing.tiktoken_encoder(self.model)
        return await choosing.by_logit_bias(self.client, self.model, self.can.name,
                                            conversation.text, choices, method, encode)


class _Chat(_OpenAIApi):
    continue_with: Mapping[str, Any] = {}

    def create(self, ask: Ask, stream: bool) -> Any:
        arguments = self.arguments(ask, stream)
        options = ask.options
        if options.return_logprob or options.top_logprobs_num:
            arguments["logprobs"] = True
            if options.top_logprobs_num:
                arguments["top_logprobs"] = options.top_logprobs_num
        elif ask.token_texts and self.token_texts:
            arguments["logprobs"] = True
        if options.json_schema is not None:
            arguments["response_format"] = {"type": "json_schema", "json_schema": {
                "name": "value", "strict": True, "schema": _schema(options.json_schema)}}
        said = ask.conversation
        messages: list[dict[str, Any]] = [
            {"role": role, "content": text} for role, text in said.messages]
        for message, parts in zip(messages, said.parts, strict=False):
            if any(isinstance(part, Shown) for part in parts):
                message["content"] = [_part(part) for part in parts]
        if messages and not messages[-1]["content"]:
            messages.pop()
        elif self.continue_with:
            arguments["extra_body"] = {**arguments.get("extra_body", {}), **self.continue_with}
        return self.client.chat.completions.create(messages=messages, **arguments)

    def answer(self, choice: Any) -> Answer:
        return self._answer(choice, choice.message)

    def piece(self, choice: Any) -> Answer:
        return self._answer(choice, choice.delta)

    @staticmethod
    def _answer(choice: Any, message: Any) -> Answer:
        refusal = getattr(message, "refusal", None)
        if refusal:
            raise api_error("OpenAI chat refused to answer", RuntimeError(refusal))
        out = Answer(message.content or "")
        found = getattr(choice, "logprobs", None)
        if found is not None and found.content:
            out.tokens = [(t.token, t.logprob) for t in found.content]
            out.top = [[(t.token, t.logprob) for t in step.top_logprobs or ()]
                       for step in found.content]
        return out

    async def choose(self, conversation: Conversation, choices: tuple[str, ...],
                     method: str) -> Choice:
        raise AssertionError("a chat API is not asked to choose")


def _part(part: str | Shown) -> dict[str, Any]:
    """A part of a message as OpenAI has it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = part.image.file
    kind = next((k for start, k in _KINDS.items() if data.startswith(start)), "png")
    return {"type": "image_url", "image_url": {
        "url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}}


_KINDS = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
_LOOK = ("look at the server's log", "run again")


def _schema(text: str) -> Any:
    import json

    return json.loads(text)
