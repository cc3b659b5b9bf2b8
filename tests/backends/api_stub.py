"""A server that speaks OpenAI's, Anthropic's and Gemini's APIs, with a model that writes by rule.

What the model writes depends on the text so far alone, character for character: asked again in
the middle of its own text, it goes on in the same way.  Faults can be queued, one a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

LABELS = ("Name", "Age", "City", "Job", "Pet", "Food")
WORDS = ("red", "blue", "a", "Ärmel", "two", "sea", "7", "north-west", "日本", "old", "x")
_TOKEN = re.compile(r"\s?\w+|\s|[^\w\s]")


def number(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def tokens(text: str) -> list[str]:
    """Words with a blank before them, blanks, and other characters."""
    return _TOKEN.findall(text)


@dataclass
class Model:
    """Writes the fields of a document, one a line; after other texts, some words.

    rate: how often, in percent, the next line is not the next field.
    """

    rate: int = 0
    seed: int = 0

    def value(self, document: str, label: str) -> str:
        n = number(self.seed, document, label)
        return " ".join([WORDS[(n >> 8 * i) % len(WORDS)] for i in range(1 + n % 4)])

    def next_label(self, document: str, label: str | None) -> str | None:
        if label is None:
            return LABELS[0]
        at = LABELS.index(label) + 1 if label in LABELS else len(LABELS)
        if at == len(LABELS):
            return None
        astray = number(self.seed, document, label, "astray") % 100 < self.rate
        return "Note" if astray else LABELS[at]

    def write(self, text: str) -> str:
        """All that the model writes after a text."""
        found = re.search(r"Document (\w+)", text)
        if found is None:
            return self.words(text)
        document = found[1]
        *before, line = text.split("\n")
        label, colon, done = line.partition(": ")
        if colon:
            target = self.value(document, label)
            if not target.startswith(done):
                return ""
            out = target[len(done):]
        else:
            last = before[-1].partition(": ")[0] if before else None
            label = self.next_label(document, last if last in LABELS else None) or ""
            if not f"{label}: ".startswith(line):  # not what it would have begun itself
                label = next((x for x in LABELS if f"{x}: ".startswith(line)), None)
                if label is None:
                    return ""
            whole = f"{label}: "
            out = whole[len(line):] + self.value(document, label)
        following = self.next_label(document, label)
        while following is not None:
            out += f"\n{following}: {self.value(document, following)}"
            following = self.next_label(document, following)
        return out

    def words(self, text: str) -> str:
        out = ""
        while ((n := number(self.seed, text + out)) % 9 or not out) and len(out) < 2000:
            out += "\n" if n % 7 == 0 else " " + WORDS[(n >> 8) % len(WORDS)]
        return out


@dataclass
class Written:
    pieces: list[str]
    finish: str  # "stop" or "length"
    matched: str | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def generate(model: Model, text: str, limit: int, stops: list[str]) -> Written:
    """As APIs do: the text up to the stop string that is complete first, or up to the limit."""
    pieces = tokens(model.write(text))
    shown = "".join(pieces[:limit])
    hits = [(at + len(s), at, s) for s in stops if (at := shown.find(s)) >= 0]
    if hits:
        _, at, matched = min(hits)
        return Written(tokens(shown[:at]), "stop", matched)
    return Written(pieces[:limit], "length" if len(pieces) >= limit else "stop", None)


@dataclass
class Asked:
    path: str
    body: dict[str, Any]
    prompt_tokens: int
    output_tokens: int


@dataclass
class Stub:
    """What a test sees of the server.

    faults: for the next requests, in order: an HTTP status, "slow", "broken" (no JSON), "drop"
    (the connection is closed without an answer), "cut" (a stream ends in the middle), "silent"
    (a stream ends without saying so), None.
    """

    model: Model = field(default_factory=Model)
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    requests: int = 0
    faults: deque[Any] = field(default_factory=deque)
    most_at_once: int = 0
    _now: int = 0

    @property
    def prompt_tokens(self) -> int:
        return sum(a.prompt_tokens for a in self.asked)

    def reset(self, **model: Any) -> None:
        self.model = Model(**model)
        self.asked.clear()
        self.faults.clear()
        self.requests = self.most_at_once = 0

    # -- requests -------------------------------------------------------------------------
    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._handle(request)
        finally:
            self._now -= 1

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, int):
            return web.json_response({"error": {"message": "a queued fault", "type": "fault"}},
                                     status=fault, headers={"Retry-After": "0"})
        if fault == "slow":
            await asyncio.sleep(30)
        if fault == "broken":
            return web.Response(text='{"choices": [{"tex', content_type="application/json")
        if fault == "drop":
            request.transport.close()  # type: ignore[union-attr]
            return web.Response()
        path = request.path
        if path.endswith("/chat/completions"):
            return await self._chat(request, body, fault)
        if path.endswith("/completions"):
            return await self._completion(request, body, fault)
        if path.endswith("/messages"):
            return await self._messages(request, body, fault)
        if ":generateContent" in path or ":streamGenerateContent" in path:
            return await self._gemini(request, body, fault)
        return web.json_response({"error": {"message": f"no {path}"}}, status=404)

    def _note(self, path: str, body: Any, prompt: int, output: int) -> dict[str, int]:
        self.asked.append(Asked(path, body, prompt, output))
        return {"prompt_tokens": prompt, "completion_tokens": output,
                "total_tokens": prompt + output}

    async def _stream(self, request: web.Request, events: list[tuple[str | None, Any]],
                      fault: Any) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        if fault in ("cut", "silent"):
            events = events[: max(0, len(events) - 3) // 2]  # the end is in the last three
        for name, event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            head = "" if name is None else f"event: {name}\n"
            await out.write(f"{head}data: {text}\n\n".encode())
            await asyncio.sleep(0)
        if fault == "cut":
            request.transport.close()  # type: ignore[union-attr]
        else:
            await out.write_eof()
        return out

    # -- OpenAI ---------------------------------------------------------------------------
    async def _completion(self, request: web.Request, body: Any, fault: Any) -> Any:
        if body.get("echo"):
            return self._echo(body)
        prompt = body["prompt"]
        stops = body.get("stop") or []
        if "logit_bias" in body:
            best = max(map(int, body["logit_bias"]), key=lambda i: number(prompt, i),
                       default=ord("?"))
            done = Written([chr(best)], "length", None)
        else:
            done = generate(self.model, prompt, body.get("max_tokens", 16), stops)
        usage = self._note("completion", body, len(tokens(prompt)), len(done.pieces))
        head = {"id": "1", "object": "text_completion", "created": 0, "model": "stub"}
        if body.get("stream"):
            events = [(None, {**head, "choices": [{"index": 0, "text": p, "finish_reason": None}]})
                      for p in done.pieces]
            events.append((None, {**head, "choices": [
                {"index": 0, "text": "", "finish_reason": done.finish}]}))
            events.append((None, {**head, "choices": [], "usage": usage}))
            return await self._stream(request, [*events, (None, "[DONE]")], fault)
        choice = {"index": 0, "text": done.text, "finish_reason": done.finish, "logprobs": None}
        if body.get("logprobs") is not None:
            choice["logprobs"] = {"tokens": done.pieces, "text_offset": [],
                                  "token_logprobs": [-0.5] * len(done.pieces),
                                  "top_logprobs": [{p: -0.5} for p in done.pieces]}
        choices = [{**choice, "index": i} for i in range(body.get("n", 1))]
        return web.json_response({**head, "choices": choices, "usage": usage})

    def _echo(self, body: Any) -> Any:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        choices = []
        for i, text in enumerate(prompts):
            pieces = tokens(text)
            logprobs = [None if not j else -(number("".join(pieces[:j + 1])) % 1000) / 100
                        for j in range(len(pieces))]
            choices.append({"index": i, "text": text, "finish_reason": "length", "logprobs": {
                "tokens": pieces, "token_logprobs": logprobs, "text_offset": [],
                "top_logprobs": None}})
        usage = self._note("echo", body, sum(len(tokens(p)) for p in prompts), 0)
        return web.json_response({"id": "1", "object": "text_completion", "created": 0,
                                  "model": "stub", "choices": choices, "usage": usage})

    async def _chat(self, request: web.Request, body: Any, fault: Any) -> Any:
        messages = [(m["role"], m["content"]) for m in body["messages"]]
        done, prompt = self._talk(messages, body.get("max_tokens") or body.get(
            "max_completion_tokens") or 16, body.get("stop") or [])
        if body.get("response_format"):
            done = Written(tokens('{"name": "Ann", "age": 7}'), "stop", None)
        usage = self._note("chat", body, prompt, len(done.pieces))
        head = {"id": "1", "created": 0, "model": "stub"}
        if body.get("stream"):
            events: list[Any] = [(None, {
                **head, "object": "chat.completion.chunk", "choices": [
                    {"index": 0, "delta": {"content": p}, "finish_reason": None}]})
                for p in done.pieces]
            events.append((None, {**head, "object": "chat.completion.chunk", "choices": [
                {"index": 0, "delta": {}, "finish_reason": done.finish}]}))
            events.append((None, {**head, "object": "chat.completion.chunk", "choices": [],
                                  "usage": usage}))
            return await self._stream(request, [*events, (None, "[DONE]")], fault)
        choice: dict[str, Any] = {"index": 0, "finish_reason": done.finish, "logprobs": None,
                                  "message": {"role": "assistant", "content": done.text}}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [
                {"token": p, "logprob": -0.5, "bytes": list(p.encode()), "top_logprobs": []}
                for p in done.pieces], "refusal": None}
        choices = [{**choice, "index": i} for i in range(body.get("n", 1))]
        return web.json_response({**head, "object": "chat.completion", "choices": choices,
                                  "usage": usage})

    def _talk(self, messages: list[tuple[str, str]], limit: int,
              stops: list[str]) -> tuple[Written, int]:
        """Goes on with a last assistant message, else begins one."""
        begun = messages[-1][1] if messages[-1][0] in ("assistant", "model") else ""
        said = messages[:-1] if begun else messages
        text = "".join([content + "\n" for _, content in said]) + begun
        return (generate(self.model, text, limit, stops),
                sum(len(tokens(content)) + 4 for _, content in messages))

    # -- Anthropic ------------------------------------------------------------------------
    async def _messages(self, request: web.Request, body: Any, fault: Any) -> Any:
        messages = [(m["role"], m["content"]) for m in body["messages"]]
        stops = body.get("stop_sequences") or []
        bad = None
        if messages[-1][0] == "assistant" and messages[-1][1] != messages[-1][1].rstrip():
            bad = "final assistant content cannot end with trailing whitespace"
        elif any(not s.strip() for s in stops):
            bad = "stop_sequences: each stop sequence must contain non-whitespace"
        elif any(role == "system" for role, _ in messages):
            bad = "unexpected role: system"
        if bad is not None:
            return web.json_response({"type": "error", "error": {
                "type": "invalid_request_error", "message": bad}}, status=400)
        if "system" in body:
            messages.insert(0, ("system", body["system"]))
        done, prompt = self._talk(messages, body["max_tokens"], stops)
        self._note("messages", body, prompt, len(done.pieces))
        reason = "max_tokens" if done.finish == "length" else (
            "stop_sequence" if done.matched else "end_turn")
        usage = {"input_tokens": prompt, "output_tokens": len(done.pieces)}
        message = {"id": "1", "type": "message", "role": "assistant", "model": "stub",
                   "content": [], "stop_reason": None, "stop_sequence": None,
                   "usage": {"input_tokens": prompt, "output_tokens": 1}}
        if body.get("stream"):
            events: list[Any] = [
                ("message_start", {"type": "message_start", "message": message}),
                ("content_block_start", {"type": "content_block_start", "index": 0,
                                         "content_block": {"type": "text", "text": ""}})]
            events += [("content_block_delta", {
                "type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": p}}) for p in done.pieces]
            events += [
                ("content_block_stop", {"type": "content_block_stop", "index": 0}),
                ("message_delta", {"type": "message_delta", "usage": usage, "delta": {
                    "stop_reason": reason, "stop_sequence": done.matched}}),
                ("message_stop", {"type": "message_stop"})]
            return await self._stream(request, events, fault)
        return web.json_response({**message, "content": [{"type": "text", "text": done.text}],
                                  "stop_reason": reason, "stop_sequence": done.matched,
                                  "usage": usage})

    # -- Gemini ---------------------------------------------------------------------------
    async def _gemini(self, request: web.Request, body: Any, fault: Any) -> Any:
        messages = [(c["role"], "".join([p["text"] for p in c["parts"]]))
                    for c in body["contents"]]
        system = body.get("systemInstruction")
        if system:
            messages.insert(0, ("system", "".join([p["text"] for p in system["parts"]])))
        config = body.get("generationConfig", {})
        done, prompt = self._talk(messages, config.get("maxOutputTokens", 16),
                                  config.get("stopSequences") or [])
        self._note("gemini", body, prompt, len(done.pieces))
        reason = "MAX_TOKENS" if done.finish == "length" else "STOP"

        def event(text: str, end: bool) -> dict[str, Any]:
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
            if end:
                candidate["finishReason"] = reason
            return {"candidates": [candidate], "usageMetadata": {
                "promptTokenCount": prompt, "candidatesTokenCount": len(done.pieces)}}

        if "stream" in request.path:
            events = [(None, event(p, False)) for p in done.pieces] + [(None, event("", True))]
            return await self._stream(request, events, fault)
        return web.json_response(event(done.text, True))


def serve() -> Iterator[Stub]:
    """A stub server on a thread of its own, while the generator is open."""
    stub = Stub()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    runner: list[web.AppRunner] = []

    async def start() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("POST", "/{tail:.*}", stub.handle)
        runner.append(web.AppRunner(app, access_log=None, shutdown_timeout=0.1,
                                    handler_cancellation=True))
        await runner[0].setup()
        site = web.TCPSite(runner[0], "127.0.0.1", 0)
        await site.start()
        port = runner[0].addresses[0][1]
        stub.url = f"http://127.0.0.1:{port}"
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield stub
    asyncio.run_coroutine_threadsafe(runner[0].cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
