"""`POST /generate`: SGLang's native request and answer, for one prompt or a batch.

Streams are cumulative, as SGLang's are: each event holds the whole text so far.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from sglc.config import RunOptions
from sglc.runtime import calls
from sglc.runtime.keys import fresh_seed
from sglc.runtime.request import Request, Result
from sglc.serve.answers import json_answer
from sglc.serve.context import CONTEXT
from sglc.serve.flight import Done, Flight, Piece
from sglc.serve.problems import Problem, problem_of
from sglc.serve.requests import GenerateRequest
from sglc.serve.sampling import Asked, asked, check_bias, constraint_of
from sglc.serve.service import Service
from sglc.serve.sse import EventStream


@dataclass(slots=True)
class _Row:
    """One sequence: its prompt, options and constraint, and what its log-probabilities begin at."""

    prompt: str | list[int]
    asked: Asked
    ids: array[int] = field(default_factory=lambda: array("q"))
    start: int | None = None  # of scored prompt tokens
    kind: str = "generate"

    @property
    def options(self) -> RunOptions:
        return self.asked.options


async def generate(service: Service, request: web.Request,
                   body: GenerateRequest) -> web.StreamResponse:
    """Answer one request."""
    single, rows = _rows(body)
    request[CONTEXT].asks(request[CONTEXT].id, rows[0].options)
    with service.flight(request[CONTEXT].deadline, request[CONTEXT].space) as flight:
        constraints: dict[Any, Any] = {}
        for what in {r.asked.constraint: r.asked for r in rows if r.asked.constraint}.values():
            constraints[what.constraint] = await service.compiled(
                partial(constraint_of, what, service.backend.tokenizer))
        stream = body.stream
        await service.in_pool(service.work, _launch, service, flight, rows, constraints, stream)
        metas = _Metas(service, rows)
        if stream:
            return await _stream(service, request, flight, metas, single, len(rows))
        results = await flight.wait()
        out = [_answer(service, result, metas(i, result)) for i, result in enumerate(results)]
        request[CONTEXT].count(results, sum(r.prompt_tokens for r in results))
        return json_answer(request, out[0] if single and len(out) == 1 else out)


def _rows(body: GenerateRequest) -> tuple[bool, list[_Row]]:
    if (body.text is None) == (body.input_ids is None):
        raise Problem(400, "a request takes text or input_ids, one of them", param="text",
                      code="invalid_value")
    if body.image_data:
        raise Problem(400, "images are not taken here, but by /v1/chat/completions",
                      param="image_data", code="unsupported")
    given: Any = body.text if body.text is not None else body.input_ids
    single = isinstance(given, str) or isinstance(given[0], int)
    prompts = [given] if single else given
    params = _each(body.sampling_params, len(prompts), "sampling_params")
    flags = [_each(getattr(body, name), len(prompts), name) for name in (
        "return_logprob", "logprob_start_len", "top_logprobs_num")]
    made: dict[Any, Asked] = {}  # rows that ask for the same share it
    rows: list[_Row] = []
    for prompt, sampling, *told in zip(prompts, params, *flags, strict=True):
        key = (id(sampling), *told)
        if key not in made:
            made[key] = asked(
                {} if sampling is None else sampling.model_dump(),
                return_logprob=bool(told[0]),
                logprob_start_len=-1 if told[1] is None else max(-1, told[1]),
                top_logprobs_num=told[2] or 0,
                return_text_in_logprobs=body.return_text_in_logprobs)
        rows.append(_Row(prompt, made[key]))
    return single, rows


def _each(value: Any, n: int, name: str) -> list[Any]:
    if not isinstance(value, list):
        return [value] * n
    if len(value) != n:
        raise Problem(400, f"{n} prompts but {len(value)} {name}", param=name,
                      code="invalid_value")
    return value


def _launch(service: Service, flight: Flight, rows: list[_Row], constraints: dict[Any, Any],
            stream: bool) -> None:
    """Tokenize and submit; in a thread."""
    tokenizer = service.backend.tokenizer
    seed = fresh_seed()
    expanded: list[_Row] = []
    for number, row in enumerate(rows):
        check_bias(row.asked, flight.vocab_size)
        row.ids = array("q", tokenizer.encode_raw(row.prompt) if isinstance(row.prompt, str)
                        else row.prompt)
        options = row.options
        told = options.return_logprob or options.top_logprobs_num > 0
        if told and options.logprob_start_len >= 0:
            row.start = min(options.logprob_start_len, len(row.ids))
        if options.max_tokens == 0:
            row.kind = "prefill" if row.start is None else "score"
        constraint = constraints.get(row.asked.constraint)
        for key in calls.gen_keys(options, seed, number, (0,)):
            flight.add(_maker(row, key, constraint), stream=stream and row.kind == "generate")
            expanded.append(row)
    rows[:] = expanded
    flight.launch()


def _maker(row: _Row, key: int, constraint: Any) -> Callable[..., Request]:
    def make(on_done: Any, on_text: Any) -> Request:
        if row.kind == "score":
            return Request("score", row.ids, on_done, score_from=row.start or 0)
        if row.kind == "prefill":
            return Request("prefill", row.ids, on_done)
        return Request("generate", row.ids, on_done, row.asked.sampling_params(), key,
                       constraint, on_text=on_text, want_prompt_logprobs_from=row.start)

    return make


class _Metas:
    """`meta_info` of results."""

    def __init__(self, service: Service, rows: list[_Row]) -> None:
        self.service = service
        self.rows = rows
        self.ids = [service.new_id("gen") for _ in rows]

    def __call__(self, index: int, result: Result) -> dict[str, Any]:
        row, tokenizer = self.rows[index], self.service.backend.tokenizer
        if row.kind == "generate":
            meta = calls.gen_meta(result, row.options, tokenizer, row.ids, row.start)
        else:
            meta = {"prompt_tokens": result.prompt_tokens, "completion_tokens": 0,
                    "cached_tokens": result.cached_tokens,
                    "finish_reason": {"type": "length", "length": 0}}
            if row.kind == "score":
                with_text = row.options.return_text_in_logprobs
                meta["input_token_logprobs"] = [
                    (lp, t, tokenizer.decode([t]) if with_text else None)
                    for lp, t in zip(result.logprobs, row.ids[row.start:], strict=True)]
                meta["output_token_logprobs"] = []
        if "input_token_logprobs" in meta:
            scored = [lp for lp, _, _ in meta["input_token_logprobs"] if lp is not None]
            # By the names of early 2024, too.
            meta["prompt_logprob"] = [lp for lp, _, _ in meta["input_token_logprobs"]]
            meta["normalized_prompt_logprob"] = (
                math.fsum(scored) / len(scored) if scored else None)
            meta["token_logprob"] = [(t, lp) for lp, t, _ in meta["output_token_logprobs"]]
        return {"id": self.ids[index], **meta}


def _answer(service: Service, result: Result, meta: dict[str, Any]) -> dict[str, Any]:
    service.metrics.ended(result)
    return {"text": result.text, "output_ids": list(result.ids), "meta_info": meta}


async def _stream(service: Service, request: web.Request, flight: Flight, metas: _Metas,
                  single: bool, rows: int) -> web.StreamResponse:
    out = EventStream(request, service.limits.write_seconds)
    texts = [""] * rows
    try:
        async for events in flight.events():
            latest: dict[int, dict[str, Any]] = {}
            for event in events:
                index = event.index
                place = {} if single and rows == 1 else {"index": index}
                if isinstance(event, Piece):
                    request[CONTEXT].wrote()
                    texts[index] += event.text
                    latest[index] = {"text": texts[index], "meta_info": {
                        "id": metas.ids[index], "prompt_tokens": len(metas.rows[index].ids),
                        "finish_reason": None}, **place}
                elif isinstance(event, Done):
                    latest[index] = {**_answer(service, event.result,
                                               metas(index, event.result)), **place}
            await out.send(*latest.values())
        results = flight.ended()
        request[CONTEXT].count(results, sum(r.prompt_tokens for r in results))
        return await out.end()
    except (Problem, RuntimeError) as error:
        return await out.fail(problem_of(error))
