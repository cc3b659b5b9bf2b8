"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from array import array
from typing import Any

from aiohttp import web

from sglc.runtime.request import Result
from sglc.serve.answers import json_answer
from sglc.serve.chat_prompt import image_urls, texts_in
from sglc.serve.context import CONTEXT
from sglc.serve.flight import Done, Event, Flight, Piece
from sglc.serve.openai_calls import REASONS, asked_of, check_common, constraint, load, usage
from sglc.serve.problems import Problem, problem_of
from sglc.serve.requests import ChatRequest
from sglc.serve.service import Service
from sglc.serve.sse import EventStream, framed
from sglc.tokens.images import PlacedImage

_UNTIL_THE_END = 1 << 30  # of the context, which the engine knows


class _Chat:
    """One request on its way."""

    def __init__(self, service: Service, body: ChatRequest) -> None:
        check_common(service, body)
        if body.top_logprobs and not body.logprobs:
            raise Problem(400, "top_logprobs is for logprobs=true", param="top_logprobs",
                          code="invalid_value")
        most = body.max_completion_tokens
        if most is None:
            most = _UNTIL_THE_END if body.max_tokens is None else body.max_tokens
        if most < 1:
            raise Problem(400, "max_tokens must be at least 1", param="max_tokens",
                          code="invalid_value")
        told = {} if not body.logprobs else {
            "return_logprob": True, "top_logprobs_num": body.top_logprobs or 0}
        self.service = service
        self.body = body
        self.n = body.n or 1
        self.asked = asked_of(body, max_tokens=most, **told)
        self.rows: list[array[int]] = []
        self.id = service.new_id("chatcmpl")
        self.created = int(time.time())

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created,
                "model": self.service.name}

    def launch(self, flight: Flight, compiled: Any, images: list[PlacedImage]) -> None:
        """Render, tokenize and submit; in a thread."""
        tools = None if self.body.tool_choice == "none" else self.body.tools
        chats = self.service.chats
        for text in texts_in(self.body.messages):
            self.service.check_length(text)
        prompt = chats.prompt(self.body.messages, tools, images)
        self.rows = [prompt.token_ids()]
        load(flight, self.rows, self.asked, compiled, images=prompt.images,
             stops=chats.template.stop, stream=bool(self.body.stream))

    def ending(self, index: int, result: Result) -> dict[str, Any]:
        """What a choice says at its end."""
        self.service.metrics.ended(result)
        return {"index": index, "logprobs": self.logprobs(result),
                "finish_reason": REASONS.get(result.finish_reason, "stop")}

    def logprobs(self, result: Result) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        tokenizer = self.service.backend.tokenizer

        def entry(lp: float | None, token: int) -> dict[str, Any]:
            return {"token": tokenizer.decode([token]), "logprob": lp,
                    "bytes": list(tokenizer.byte_table[token])}

        tops = result.top_logprobs or ((),) * len(result.ids)
        return {"refusal": None, "content": [
            {**entry(lp, token), "top_logprobs": [entry(*t) for t in top]}
            for lp, token, top in zip(result.logprobs, result.ids, tops, strict=True)]}


async def chat(service: Service, request: web.Request, body: ChatRequest) -> web.StreamResponse:
    """Answer one request."""
    run = _Chat(service, body)
    request[CONTEXT].asks(run.id, run.asked.options)
    context = request[CONTEXT]
    heavy = service.hold_logprobs([(run.asked.options, 0)], context.holds)
    with service.flight(context.deadline, context.space) as flight:
        compiled = await constraint(service, run.asked)
        images = await service.pictures.place(
            image_urls(body.messages), param="messages", deadline=context.deadline,
            until=context.holds, positions=service.context_length)
        await service.in_pool(service.work, run.launch, flight, compiled, images)
        if body.stream:
            return await _stream(request, run, flight, heavy)
        results = await flight.wait()
        choices = await service.made(lambda: [{**run.ending(i, r), "message": {
            "role": "assistant", "content": r.text, "refusal": None}}
            for i, r in enumerate(results)], heavy=heavy)
        counts = usage(run.rows, results, run.n)
        context.count(results, counts["prompt_tokens"])
        return await service.made(json_answer, request, {
            **run.head("chat.completion"), "choices": choices, "usage": counts}, heavy=heavy)


async def _stream(request: web.Request, run: _Chat, flight: Flight,
                  heavy: bool) -> web.StreamResponse:
    out = EventStream(request, run.service.limits.write_seconds)
    head = run.head("chat.completion.chunk")
    sent = [0] * len(flight.requests)
    begun: set[int] = set()

    def chunks(index: int, text: str) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        if index not in begun:
            begun.add(index)
            deltas.append({"role": "assistant", "content": ""})
        if text:
            deltas.append({"content": text})
        return [{**head, "choices": [{"index": index, "delta": d, "logprobs": None,
                                      "finish_reason": None}]} for d in deltas]

    def said(events: list[Event]) -> str:
        payloads: list[dict[str, Any]] = []
        for event in events:
            if isinstance(event, Piece):
                request[CONTEXT].wrote()
                sent[event.index] += len(event.text)
                payloads += chunks(event.index, event.text)
            elif isinstance(event, Done):
                payloads += chunks(event.index, event.result.text[sent[event.index]:])
                payloads.append({**head, "choices": [
                    {"delta": {}, **run.ending(event.index, event.result)}]})
        return framed(payloads)

    try:
        async for events in flight.events():
            await out.write(await run.service.made(said, events, heavy=heavy))
        results = flight.ended()
        counts = usage(run.rows, results, run.n)
        request[CONTEXT].count(results, counts["prompt_tokens"])
        if run.body.stream_options is not None and run.body.stream_options.include_usage:
            await out.send({**head, "choices": [], "usage": counts})
        return await out.end()
    except (Problem, RuntimeError) as error:
        return await out.fail(problem_of(error))
