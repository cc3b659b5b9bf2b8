"""`POST /v1/completions`."""

from __future__ import annotations

import time
from array import array
from typing import Any

from aiohttp import web

from sglc.runtime.request import Result
from sglc.serve.answers import json_answer
from sglc.serve.context import CONTEXT
from sglc.serve.flight import Done, Event, Flight, Piece
from sglc.serve.openai_calls import REASONS, asked_of, check_common, constraint, load, usage
from sglc.serve.problems import Problem, problem_of
from sglc.serve.requests import CompletionRequest
from sglc.serve.service import Service
from sglc.serve.spelling import Spelling
from sglc.serve.sse import EventStream, framed


class _Completion:
    """One request on its way."""

    def __init__(self, service: Service, body: CompletionRequest) -> None:
        check_common(service, body)
        n = body.n or 1
        if body.best_of is not None and body.best_of != n:
            raise Problem(400, "best_of must equal n", param="best_of", code="unsupported")
        if body.suffix:
            raise Problem(400, "suffix is not supported", param="suffix", code="unsupported")
        self.service = service
        self.body = body
        self.n = n
        told = {} if body.logprobs is None else {
            "return_logprob": True, "top_logprobs_num": body.logprobs}
        self.asked = asked_of(
            body, max_tokens=16 if body.max_tokens is None else body.max_tokens, **told)
        prompt: Any = body.prompt
        one = isinstance(prompt, str) or isinstance(prompt[0], int)
        self.prompts: list[Any] = [prompt] if one else prompt
        self.rows: list[array[int]] = []
        self.spelling = Spelling(service.backend.tokenizer)
        self.head: dict[str, Any] = {"id": service.new_id("cmpl"), "object": "text_completion",
                                     "created": int(time.time()), "model": service.name}

    def launch(self, flight: Flight, compiled: Any) -> None:
        """Tokenize and submit; in a thread."""
        encode = self.service.backend.tokenizer.encode_raw
        for prompt in self.prompts:
            if isinstance(prompt, str):
                self.service.check_length(prompt)
        self.rows = [array("q", encode(p) if isinstance(p, str) else p) for p in self.prompts]
        load(flight, self.rows, self.asked, compiled, stream=bool(self.body.stream),
             echo_logprobs=bool(self.body.echo) and self.body.logprobs is not None)

    def echoed(self, index: int) -> str:
        """What goes before the text of a choice."""
        if not self.body.echo:
            return ""
        prompt = self.prompts[index // self.n]
        return prompt if isinstance(prompt, str) else self.spelling.text(prompt)

    def choice(self, index: int, result: Result, text: str) -> dict[str, Any]:
        self.service.metrics.ended(result)
        length = self.asked.options.max_tokens == 0
        return {"index": index, "text": text, "logprobs": self.logprobs(index, result),
                "finish_reason": "length" if length else
                REASONS.get(result.finish_reason, "stop")}

    def logprobs(self, index: int, result: Result) -> dict[str, Any] | None:
        if self.body.logprobs is None:
            return None
        token = self.spelling.token
        score_only = self.asked.options.max_tokens == 0
        prompt = self.rows[index // self.n] if self.body.echo else ()
        generated = () if score_only else result.ids
        lps: list[float | None] = []
        tops: list[dict[str, float]] = []
        if self.body.echo:
            lps += result.logprobs if score_only else result.prompt_logprobs
            tops += [{} if lp is None else {token(t): lp}
                     for lp, t in zip(lps, prompt, strict=True)]
        if not score_only:
            lps += result.logprobs
            if self.body.logprobs:
                tops += [{token(t): lp for lp, t in reversed(step)}
                         for step in result.top_logprobs]
            else:
                tops += [{}] * len(result.ids)
        return {"tokens": [token(t) for t in (*prompt, *generated)], "token_logprobs": lps,
                "top_logprobs": tops,
                "text_offset": self.spelling.offsets(self.echoed(index), prompt, generated)}


async def completions(service: Service, request: web.Request,
                      body: CompletionRequest) -> web.StreamResponse:
    """Answer one request."""
    run = _Completion(service, body)
    request[CONTEXT].asks(run.head["id"], run.asked.options)
    heavy = service.hold_logprobs([(run.asked.options, len(p) if body.echo else 0)
                                   for p in run.prompts], request[CONTEXT].holds)
    with service.flight(request[CONTEXT].deadline, request[CONTEXT].space) as flight:
        compiled = await constraint(service, run.asked)
        await service.in_pool(service.work, run.launch, flight, compiled)
        if body.stream:
            return await _stream(request, run, flight, heavy)
        results = await flight.wait()
        choices = await service.made(lambda: [
            run.choice(i, r, run.echoed(i) + r.text) for i, r in enumerate(results)], heavy=heavy)
        counts = usage(run.rows, results, run.n)
        request[CONTEXT].count(results, counts["prompt_tokens"])
        return await service.made(json_answer, request, {
            **run.head, "choices": choices, "usage": counts}, heavy=heavy)


async def _stream(request: web.Request, run: _Completion, flight: Flight,
                  heavy: bool) -> web.StreamResponse:
    out = EventStream(request, run.service.limits.write_seconds)
    sent = [0] * len(flight.requests)  # characters of each text
    begun: set[int] = set()

    def chunk(index: int, text: str) -> dict[str, Any]:
        if index not in begun:
            begun.add(index)
            text = run.echoed(index) + text
        return {**run.head, "choices": [{"index": index, "text": text, "logprobs": None,
                                         "finish_reason": None}]}

    def said(events: list[Event]) -> str:
        payloads = []
        for event in events:
            if isinstance(event, Piece):
                request[CONTEXT].wrote()
                sent[event.index] += len(event.text)
                payloads.append(chunk(event.index, event.text))
            elif isinstance(event, Done):
                rest = event.result.text[sent[event.index]:]
                if rest or event.index not in begun:
                    payloads.append(chunk(event.index, rest))
                payloads.append({**run.head, "choices": [
                    run.choice(event.index, event.result, "")]})
        return framed(payloads)

    try:
        async for events in flight.events():
            await out.write(await run.service.made(said, events, heavy=heavy))
        results = flight.ended()
        counts = usage(run.rows, results, run.n)
        request[CONTEXT].count(results, counts["prompt_tokens"])
        if run.body.stream_options is not None and run.body.stream_options.include_usage:
            await out.send({**run.head, "choices": [], "usage": counts})
        return await out.end()
    except (Problem, RuntimeError) as error:
        return await out.fail(problem_of(error))
