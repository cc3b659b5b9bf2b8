"""`POST /generate`: SGLang's native request and answer, for one prompt or a batch.

Streams are cumulative, as SGLang's are: each event holds the whole text so far.  Images stand in a
text where its chat template's mark does ("<image>"), in order.
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
from sglc.serve.flight import Done, Event, Flight, Piece
from sglc.serve.problems import Problem, problem_of
from sglc.serve.requests import GenerateRequest
from sglc.serve.sampling import Asked, asked, check_bias, constraint_of
from sglc.serve.service import Service
from sglc.serve.sse import EventStream, framed
from sglc.tokens.images import FIRST_ID, PlacedImage, image_text
from sglc.tokens.prompt import Prompt
from sglc.tokens.templates import control_names


@dataclass(slots=True)
class _Row:
    """One sequence: its prompt, options and constraint, and what its log-probabilities begin at."""

    prompt: str | list[int]
    asked: Asked
    ids: array[int] = field(default_factory=lambda: array("q"))
    start: int | None = None  # of scored prompt tokens
    kind: str = "generate"
    files: list[str] = field(default_factory=list)  # of images, as they were given
    images: tuple[PlacedImage, ...] = ()

    @property
    def options(self) -> RunOptions:
        return self.asked.options


async def generate(service: Service, request: web.Request,
                   body: GenerateRequest) -> web.StreamResponse:
    """Answer one request."""
    single, rows = _rows(body)
    context = request[CONTEXT]
    context.asks(context.id, rows[0].options)
    placed = iter(await service.pictures.place(
        [file for row in rows for file in row.files], param="image_data",
        deadline=context.deadline, until=context.holds))
    for row in rows:
        row.images = tuple([next(placed) for _ in row.files])
    heavy = service.hold_logprobs([
        (row.options, 0 if row.options.logprob_start_len < 0 else len(row.prompt))
        for row in rows], context.holds)
    with service.flight(context.deadline, context.space) as flight:
        constraints: dict[Any, Any] = {}
        for what in {r.asked.constraint: r.asked for r in rows if r.asked.constraint}.values():
            constraints[what.constraint] = await service.compiled(
                partial(constraint_of, what, service.backend.tokenizer))
        stream = body.stream
        await service.in_pool(service.work, _launch, service, flight, rows, constraints, stream)
        metas = _Metas(service, rows)
        if stream:
            return await _stream(service, request, flight, metas, single, len(rows), heavy)
        results = await flight.wait()
        out = await service.made(lambda: [_answer(service, result, metas(i, result))
                                          for i, result in enumerate(results)], heavy=heavy)
        context.count(results, sum(r.prompt_tokens for r in results))
        answer = out[0] if single and len(out) == 1 else out
        return await service.made(json_answer, request, answer, heavy=heavy)


def _rows(body: GenerateRequest) -> tuple[bool, list[_Row]]:
    if (body.text is None) == (body.input_ids is None):
        raise Problem(400, "a request takes text or input_ids, one of them", param="text",
                      code="invalid_value")
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
    if body.image_data:
        for row, files in zip(rows, _files(body.image_data, single, len(rows)), strict=True):
            if files and not isinstance(row.prompt, str):
                raise Problem(400, "images are taken with text, where it is said where they stand",
                              param="image_data", code="unsupported")
            row.files = files
    return single, rows


def _files(given: Any, single: bool, n: int) -> list[list[str]]:
    """The images of each of `n` prompts."""
    if not single and not isinstance(given, list):
        raise Problem(400, "image_data of several prompts is a list with one's images each",
                      param="image_data", code="invalid_value")
    each = [given] if single else _each(given, n, "image_data")
    out = [[f] if isinstance(f, str) else [x for x in f or () if x is not None] for f in each]
    if not all(isinstance(x, str) for files in out for x in files):
        raise Problem(400, "an image of image_data is a text", param="image_data",
                      code="invalid_value")
    return out


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
    seed = fresh_seed()
    expanded: list[_Row] = []
    for number, row in enumerate(rows):
        check_bias(row.asked, flight.vocab_size)
        row.ids = _ids(service, row)
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


def _ids(service: Service, row: _Row) -> array[int]:
    tokenizer = service.backend.tokenizer
    if not isinstance(row.prompt, str):
        return array("q", row.prompt)
    service.check_length(row.prompt)
    if not row.images:
        return array("q", tokenizer.encode_raw(row.prompt))
    mark = image_text(service.backend.template)[1] or "<image>"
    texts = row.prompt.split(mark)
    if len(texts) != len(row.images) + 1:
        raise Problem(400, f"the text has {len(texts) - 1} times {mark}, and there are "
                      f"{len(row.images)} images", param="image_data", code="invalid_value")
    names, prompt = control_names(tokenizer), Prompt.empty(tokenizer)
    for text, image in zip(texts, (*row.images, None), strict=True):
        for piece in names.split(text):
            prompt = prompt.append(piece) if isinstance(piece, str) else prompt.special(piece.id)
        if image is not None:
            prompt = prompt.image(image, mark)
    return prompt.token_ids()


def _maker(row: _Row, key: int, constraint: Any) -> Callable[..., Request]:
    def make(on_done: Any, on_text: Any) -> Request:
        if row.kind == "score":
            return Request("score", row.ids, on_done, score_from=row.start or 0,
                           images=row.images)
        if row.kind == "prefill":
            return Request("prefill", row.ids, on_done, images=row.images)
        return Request("generate", row.ids, on_done, row.asked.sampling_params(), key,
                       constraint, on_text=on_text, want_prompt_logprobs_from=row.start,
                       images=row.images)

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
                    (lp, t, tokenizer.decode([t]) if with_text and t < FIRST_ID else None)
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
                  single: bool, rows: int, heavy: bool) -> web.StreamResponse:
    out = EventStream(request, service.limits.write_seconds)
    texts = [""] * rows

    def said(events: list[Event]) -> str:
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
        return framed(latest.values())

    try:
        async for events in flight.events():
            await out.write(await service.made(said, events, heavy=heavy))
        results = flight.ended()
        request[CONTEXT].count(results, sum(r.prompt_tokens for r in results))
        return await out.end()
    except (Problem, RuntimeError) as error:
        return await out.fail(problem_of(error))
