"""What both OpenAI endpoints do: check the common fields, run prompts times `n`, count tokens."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from typing import Any

from sglc.runtime import calls
from sglc.runtime.keys import fresh_seed
from sglc.runtime.request import Request, Result
from sglc.serve.flight import Flight
from sglc.serve.problems import Problem
from sglc.serve.requests import ChatRequest, CompletionRequest
from sglc.serve.sampling import Asked, asked, check_bias, constraint_of
from sglc.serve.service import Service
from sglc.tokens.images import PlacedImage

REASONS = {"length": "length"}  # all others are "stop"
_SHARED = ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty",
           "top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids",
           "regex", "choices", "json_schema", "ebnf", "n", "logit_bias")


def check_model(service: Service, model: str) -> None:
    """Raises Problem 404 unless this server's model is meant."""
    if model not in ("default", service.name, service.path):
        raise Problem(404, f"there is no model {model!r} here; this server has "
                      f"{service.name!r} (or \"default\")", param="model",
                      code="model_not_found")


def check_common(service: Service, body: CompletionRequest | ChatRequest) -> None:
    """The fields that both have and this server has limits for."""
    check_model(service, body.model)
    if body.stream_options is not None and not body.stream:
        raise Problem(400, "stream_options is for streams", param="stream_options",
                      code="invalid_value")


def asked_of(body: CompletionRequest | ChatRequest, **more: Any) -> Asked:
    """The options that the body asks for; `more`: those that are named otherwise there."""
    given = {name: getattr(body, name) for name in _SHARED}
    format_ = getattr(body, "response_format", None)
    if format_ is not None and format_.type != "text":
        if given["json_schema"] is not None:
            raise Problem(400, "response_format and json_schema are given both",
                          param="response_format", code="invalid_value")
        if format_.type == "json_object":
            given["json_schema"] = '{"type": "object"}'
        elif format_.json_schema is None:
            raise Problem(400, "response_format has no json_schema", code="invalid_value",
                          param="response_format.json_schema")
        else:
            given["json_schema"] = json.dumps(format_.json_schema.schema_)
    return asked(given, **more)


async def constraint(service: Service, what: Asked) -> Any:
    """The compiled constraint, or None."""
    if what.constraint is None:
        return None
    return await service.compiled(lambda: constraint_of(what, service.backend.tokenizer))


def load(flight: Flight, rows: list[array[int]], what: Asked, compiled: Any, *,
         images: tuple[PlacedImage, ...] = (), stops: tuple[str, ...] = (),
         echo_logprobs: bool = False, stream: bool = False) -> None:
    """Load every prompt `n` times, and launch; in a thread.  images: those in the prompts.

    Raises Problem 400 or 429.
    """
    check_bias(what, flight.vocab_size)
    options = what.options
    params = what.sampling_params(stops)
    seed = fresh_seed()
    score_only = options.max_tokens == 0

    def maker(ids: array[int], key: int) -> Callable[..., Request]:
        def make(on_done: Any, on_text: Any) -> Request:
            if score_only:
                kind = "score" if echo_logprobs else "prefill"
                return Request(kind, ids, on_done, images=images)  # type: ignore[arg-type]
            return Request("generate", ids, on_done, params, key, compiled, on_text=on_text,
                           images=images,
                           want_prompt_logprobs_from=0 if echo_logprobs else None)

        return make

    for number, ids in enumerate(rows):
        for key in calls.gen_keys(options, seed, number, (0,)):
            flight.add(maker(ids, key), stream=stream and not score_only)
    flight.launch()


def usage(rows: list[array[int]], results: list[Result], n: int) -> dict[str, Any]:
    """Token counts: a prompt counts once, however many samples it has."""
    prompt = sum(len(ids) for ids in rows)
    completion = sum(r.output_tokens for r in results)
    return {"prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": sum(r.cached_tokens for r in results[::n])}}
