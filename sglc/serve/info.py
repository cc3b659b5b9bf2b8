"""Routes that tell about the server, and the one that empties its cache."""

from __future__ import annotations

import time
from array import array
from dataclasses import asdict
from time import monotonic

from aiohttp import web

from sglc import __version__
from sglc.runtime.request import Request, SamplingParams
from sglc.serve.answers import json_answer
from sglc.serve.context import CONTEXT
from sglc.serve.problems import Problem
from sglc.serve.requests import MAX_ROWS
from sglc.serve.service import Service

_FLUSHED = ("Cache flushed.\nPlease check backend logs for more details. (When there are running "
            "or waiting requests, the operation will not be performed.)\n")


def _text(request: web.Request, text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers=dict(request[CONTEXT].headers))


async def health(service: Service, request: web.Request) -> web.Response:
    """200 while the event loop and the engine go on, also while draining."""
    if service.stalled:
        raise Problem(503, "the engine makes no progress", code="engine_stalled")
    return json_answer(request, {"status": "draining" if service.draining else "ok"})


async def ready(service: Service, request: web.Request) -> web.Response:
    if service.draining or service.stalled:
        raise Problem(503, "no new requests are taken", code="draining")
    return json_answer(request, {"status": "ok"})


async def health_generate(service: Service, request: web.Request) -> web.Response:
    """One token through the whole engine."""
    ids = array("q", service.backend.tokenizer.encode_raw("a"))
    with service.flight(min(request[CONTEXT].deadline, monotonic() + 20)) as flight:
        flight.add(lambda done, _: Request("generate", ids, done, SamplingParams(
            max_tokens=1, temperature=0.0)))
        await service.in_pool(service.work, flight.launch)
        await flight.wait()
    return json_answer(request, {"status": "ok"})


async def models(service: Service, request: web.Request) -> web.Response:
    return json_answer(request, {"object": "list", "data": [{
        "id": service.name, "object": "model", "created": service.created, "owned_by": "sglc",
        "root": service.path, "max_model_len": service.backend.core.runner.context_length}]})


async def model_info(service: Service, request: web.Request) -> web.Response:
    tokenizer = service.backend.tokenizer
    return json_answer(request, {
        "model_path": service.path, "tokenizer_path": service.path, "is_generation": True,
        "served_model_name": service.name, "engine": "sglc",
        "context_length": service.backend.core.runner.context_length,
        "vocab_size": tokenizer.vocab_size, "tokenizer_fingerprint": tokenizer.fingerprint,
        "chat_template": service.backend.template.name,
        "role_texts": service.chats.role_texts, "special_tokens": sorted(tokenizer.special),
        "max_body_bytes": service.limits.body_bytes,
        "max_rows": min(MAX_ROWS, service.limits.sequences),
        "max_images": service.pictures.limits.images})


async def server_info(service: Service, request: web.Request) -> web.Response:
    stats = await service.told(service.backend.stats)
    running, waiting = await service.told(service.backend.core.load)
    return json_answer(request, {
        "version": __version__, "model_path": service.path, "status":
            "draining" if service.draining else "ready", "time": int(time.time()),
        "running": running, "waiting": waiting, "settings": service.settings,
        "stats": asdict(stats)})


async def server_args(service: Service, request: web.Request) -> web.Response:
    return json_answer(request, {"model_path": service.path, **service.settings})


async def flush_cache(service: Service, request: web.Request) -> web.Response:
    if service.gate.inside:
        return _text(request, _FLUSHED, 400)
    await service.told(service.backend.flush_cache)
    return _text(request, _FLUSHED)


async def metrics(service: Service, request: web.Request) -> web.Response:
    data = await service.told(service.metrics.text)
    return web.Response(body=data, headers={
        **request[CONTEXT].headers, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def openapi(service: Service, request: web.Request) -> web.Response:
    from sglc.serve.openapi import document

    if service.document is None:
        service.document = await service.in_pool(service.work, document, bool(service.keys))
    return json_answer(request, service.document)
