"""`RuntimeEndpoint`: an sglc or SGLang server as a backend.

A program without calls of Python goes to an sglc server whole, as one unit (`/v1/programs`), and
gives what it would give in this process.  Everything else, and everything on an SGLang server,
runs here and calls `/generate` with the prompt's text.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from time import monotonic
from typing import Any

from sglc.backends.api.asking import Answer, Ask, Choice, Reply, api_error
from sglc.backends.api.capabilities import Capabilities
from sglc.backends.api.target import ApiBackend
from sglc.backends.cuts import Cut
from sglc.backends.daemons import DaemonPool
from sglc.backends.http_json import HttpJson
from sglc.backends.sent_rows import Most
from sglc.backends.templates import registry
from sglc.config import RunOptions
from sglc.errors import ApiError, CapabilityError
from sglc.runtime import calls
from sglc.tokens.branches import common_prefix
from sglc.tokens.templates import ChatTemplate
from sglc.tokens.text_prompt import Conversation

_DEFAULT = RunOptions()
_MOST = Most(256, 4 << 20, 64)  # what a server takes that does not say
_SENT = ("min_tokens", "stop_token_ids", "temperature", "top_p", "top_k", "min_p",
         "frequency_penalty", "presence_penalty", "repetition_penalty", "ignore_eos",
         "no_stop_trim", "regex", "json_schema", "ebnf", "seed")
_THEIRS = {"min_tokens": "min_new_tokens", "seed": "sampling_seed"}


class RuntimeEndpoint(ApiBackend):
    """A server of `/generate`.  Contacted at once: raises ApiError SGLC509 if it is not there.

    base_url: such as "http://localhost:30000".  api_key (auth_token): the server's key.  verify:
    a CA file, or False.  chat_template_name: of roles in prompts that are sent as text; by
    default what an sglc server says of its template, or SGLang's choice by the model's path.
    """

    def __init__(self, base_url: str, api_key: str | None = None,
                 verify: str | bool | None = None, chat_template_name: str | None = None, *,
                 auth_token: str | None = None, timeout: float = 600.0,
                 max_concurrent: int = 64) -> None:
        self.base_url = base_url.rstrip("/")
        self.http = HttpJson(base_url, api_key=api_key or auth_token, verify=verify,
                             timeout=timeout, connections=max_concurrent)
        info = self.http.call("GET", "/get_model_info")
        if not isinstance(info, dict) or "model_path" not in info:
            raise ApiError("SGLC509", f"{base_url} does not say which model it has",
                           fixes=("check that base_url is an sglc or SGLang server",))
        self.model_info: dict[str, Any] = info
        self.is_sglc = info.get("engine") == "sglc"
        self.most = Most(int(info.get("max_rows") or _MOST.rows),
                         int(info.get("max_body_bytes") or _MOST.bytes) * 7 // 8,
                         int(info.get("max_images") or _MOST.images))
        template: Any = chat_template_name or _template_said(info)
        if template is None:
            template = registry.by_model_path(info["model_path"])
        self._pool = DaemonPool(max_concurrent, "sglc-remote")
        self._closed = threading.Event()
        special = tuple(info.get("special_tokens") or ())
        own = () if chat_template_name is not None else (
            (info.get("role_texts") or {}).get("control_tokens") or ())
        api = _Generate(self.http, self._pool, "the server at " + self.base_url, special)
        super().__init__(api, max_concurrent=max_concurrent, chat_template=template,
                         control_names={*special, *own})

    # -- programs -------------------------------------------------------------------------
    def start_program(self, bodies: Sequence[Mapping[str, Any]]
                      ) -> list[Future[list[dict[str, Any]]]] | None:
        """Send a program and parts of its rows, one part after the other; each one's outcomes.
        None if the server takes none."""
        if not self.is_sglc:
            return None
        futures: list[Future[list[dict[str, Any]]]] = [Future() for _ in bodies]

        def send() -> None:
            for future, body in zip(futures, bodies, strict=True):
                if self._closed.is_set():
                    return
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(self._send_program(body))
                    except BaseException as error:
                        future.set_exception(error)

        def ended(_: Future[None]) -> None:
            for future in futures:  # those that never began, where the backend was closed
                future.cancel()

        self._pool.submit(send).add_done_callback(ended)
        return futures

    def _send_program(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One part's outcomes; while the server's queue is full it is asked again, for as long as
        an answer would be waited for."""
        until = monotonic() + self.http.timeout
        while True:
            try:
                rows: list[dict[str, Any]] = self.http.call("POST", "/v1/programs", body)["rows"]
                return rows
            except ApiError as error:
                if error.status != 429 or self._closed.wait(1.0) or monotonic() > until:
                    raise

    # -- for users ------------------------------------------------------------------------
    def get_model_name(self) -> str:
        return str(self.model_info["model_path"])

    def get_server_info(self) -> dict[str, Any]:
        """The server's settings and counters."""
        found: dict[str, Any] = self.http.call("GET", "/get_server_info")
        return found

    get_server_args = get_server_info

    def flush_cache(self) -> None:
        self.http.call("POST" if self.is_sglc else "GET", "/flush_cache")

    def close(self) -> None:
        self._closed.set()
        super().close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.http.close()


def _template_said(info: Mapping[str, Any]) -> ChatTemplate | None:
    """The template whose texts an sglc server tells."""
    said = info.get("role_texts")
    if not isinstance(said, dict):
        return None
    return ChatTemplate("the server's", said.get("default_system"),
                        {role: (a, b) for role, (a, b) in said["roles"].items()},
                        tuple(said["stop"]), said.get("image_token", "<image>"))


class _Generate:
    """`POST /generate` as an API for text prompts.

    special: the names that the server takes for control tokens wherever they are in a text, as
    far as it tells.
    """

    def __init__(self, http: HttpJson, pool: Executor, name: str,
                 special: tuple[str, ...] = ()) -> None:
        self.http = http
        self._special = special
        self.can = Capabilities(
            name, frozenset((*_SENT, "return_logprob", "top_logprobs_num")), max_stops=16,
            messages=False, continues=True, images=True, max_temperature=100.0)
        self._pool = pool

    async def generate(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        options = ask.options
        told = options.return_logprob or options.top_logprobs_num > 0
        params: dict[str, Any] = {"max_new_tokens": ask.max_tokens, "n": ask.n}
        for name in _SENT:
            value = getattr(options, name)
            if value != getattr(_DEFAULT, name):
                params[_THEIRS.get(name, name)] = list(value) if isinstance(value, tuple) else (
                    value)
        if ask.n == 1:
            del params["n"]
        if ask.stop:
            params["stop"] = list(ask.stop)
        self._check(ask.conversation, ask.conversation.text)
        body: dict[str, Any] = {"text": ask.conversation.text, "sampling_params": params,
                                **_pictures(ask.conversation, 1)}
        if told:
            body |= {"return_logprob": True, "return_text_in_logprobs": True,
                     "top_logprobs_num": options.top_logprobs_num}
        if on_text is None or ask.n > 1:
            found = await self._call(body)
        else:
            found = await self._in_pool(lambda cut: self._stream(body, on_text, cut))
        rows = found if isinstance(found, list) else [found]
        if not rows or not all(isinstance(r, dict) and "text" in r for r in rows):
            raise api_error(f"{self.can.name} gave no text")
        metas = [r.get("meta_info") or {} for r in rows]
        return Reply([_answer(r["text"], m) for r, m in zip(rows, metas, strict=True)],
                     metas[0].get("prompt_tokens") or 0, metas[0].get("cached_tokens") or 0,
                     sum(m.get("completion_tokens") or 0 for m in metas))

    def _stream(self, body: Mapping[str, Any], on_text: Callable[[str], None],
                cut: Cut) -> Any:
        sent, last = 0, None
        for last in self.http.events("/generate", {**body, "stream": True}, cut):
            if piece := last["text"][sent:]:
                sent += len(piece)
                on_text(piece)
        return last

    async def choose(self, conversation: Conversation, choices: tuple[str, ...],
                     method: str) -> Choice:
        """By the log-probabilities of every choice as part of the prompt."""
        total, text = Choice(0, {}, 0), conversation.text
        for choice in choices:
            self._check(conversation, text + choice)
        base, *rows = await self._scored("text", [text, *[text + c for c in choices]], total,
                                         **_pictures(conversation, 1 + len(choices)))
        ids = [array("q", [t for _, t, _ in row]) for row in (base, *rows)]
        start = common_prefix(ids)
        scored = [row[start:] for row in rows]
        alone: list[list[float]] = []
        if method == "unconditional_likelihood_normalized":
            found = await self._scored("input_ids", [list(x[start:]) for x in ids[1:]], total)
            alone = [[lp or 0.0 for lp, _, _ in row] for row in found]
        total.index, total.meta = calls.choose(
            method, [[lp or 0.0 for lp, _, _ in row] for row in scored], alone)
        total.meta["input_token_logprobs"] = [[tuple(e) for e in row] for row in scored]
        total.meta["output_token_logprobs"] = [[] for _ in choices]
        return total

    def _check(self, conversation: Conversation, text: str) -> None:
        """CapabilityError SGLC012 for a text of the program that names a control token: what is
        plain text in this process would be one there."""
        marks = [image.text for image in conversation.images]
        for name in self._special:
            if name in text and text.count(name) != (
                    conversation.controls.count(name) + marks.count(name)):
                raise CapabilityError(
                    "SGLC012", f"a prompt with {name} in its text is not sent to a server",
                    why="it would be a control token there",
                    fixes=(f"leave {name} out of the text",
                           "run the program as one unit: compiled, without calls of Python"))

    async def _scored(self, kind: str, prompts: list[Any], total: Choice,
                      **more: Any) -> list[Any]:
        rows = await self._call({
            **more, kind: prompts, "return_logprob": True, "logprob_start_len": 0,
            "return_text_in_logprobs": True,
            "sampling_params": {"max_new_tokens": 0, "temperature": 0}})
        total.calls += 1
        total.prompt_tokens += sum(r["meta_info"].get("prompt_tokens", 0) for r in rows)
        total.cached_tokens += sum(r["meta_info"].get("cached_tokens", 0) for r in rows)
        out = [r["meta_info"].get("input_token_logprobs") for r in rows]
        if any(not row for row in out):
            raise CapabilityError("SGLC012", f"{self.can.name} has no select",
                                  why="it gives no log-probabilities of a prompt")
        return out

    async def _call(self, body: Mapping[str, Any]) -> Any:
        return await self._in_pool(lambda cut: self.http.call("POST", "/generate", body, cut))

    async def _in_pool(self, work: Callable[[Cut], Any]) -> Any:
        """What a call gives, made in a thread; a cancellation ends it there and on the server."""
        cut = self.http.cut()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, cut)
        except asyncio.CancelledError:
            cut.make()
            raise

    def problem(self, error: Exception) -> ApiError:
        return api_error(f"the answer of {self.can.name} could not be read", error,
                         fixes=("check that base_url is a server of /generate",))

    async def close(self) -> None:
        """The connections are closed by the backend."""


def _pictures(conversation: Conversation, prompts: int) -> dict[str, Any]:
    """The field for a conversation's images, of as many prompts with the same ones."""
    if not conversation.images:
        return {}
    mark = conversation.images[0].text
    if conversation.text.count(mark) != len(conversation.images):
        raise CapabilityError(
            "SGLC012", f"a prompt with images and {mark} in its text is not sent to a server",
            why="it marks where images stand there", fixes=(f"leave {mark} out of the text",))
    files = [base64.b64encode(i.image.file).decode() for i in conversation.images]
    if prompts > 1:
        return {"image_data": [files] * prompts}
    return {"image_data": files[0] if len(files) == 1 else files}


def _answer(text: str, meta: Mapping[str, Any]) -> Answer:
    reason = meta.get("finish_reason")
    kind, matched = "stop", None
    if isinstance(reason, dict):
        kind, matched = reason.get("type") or "stop", reason.get("matched")
    elif isinstance(reason, str):
        kind = reason
    out = Answer(text, kind, matched if isinstance(matched, str) else None)
    if meta.get("output_token_logprobs"):
        out.tokens = [(t, lp) for lp, _, t in meta["output_token_logprobs"]]
        out.top = [[(t, lp) for lp, _, t in step or ()]
                   for step in meta.get("output_top_logprobs") or ()]
    return out
