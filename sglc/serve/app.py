"""The application: routes behind one guard that lets in, counts, logs and words every error."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from aiohttp import web

from sglc.errors import SglcError
from sglc.serve.answers import json_answer
from sglc.serve.connection import Connection
from sglc.serve.context import CONTEXT, Context
from sglc.serve.custody import ANSWERING, ASKED
from sglc.serve.problems import Problem, problem_of
from sglc.serve.reading import read_body
from sglc.serve.routes import ROUTES, Access, Route
from sglc.serve.service import Service

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(service: Service) -> web.Application:
    """The aiohttp application of a service."""
    guard = Guard(service)
    app = web.Application(middlewares=[guard.middleware],
                          client_max_size=service.limits.body_bytes)
    app.on_response_prepare.append(_begins)
    for route in ROUTES:
        if route.method == "GET":
            app.router.add_get(route.path, guard.handler(route), allow_head=False)
        else:
            app.router.add_post(route.path, guard.handler(route))
    return app


async def _begins(request: web.Request, response: web.StreamResponse) -> None:
    _mark(request, ANSWERING)


def _mark(request: web.Request, state: int) -> None:
    if isinstance(request.protocol, Connection):
        request.protocol.mark(state)


class Guard:
    """Who may, whether there is room, and what is said when something fails."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._routes = {(r.method, r.path): r for r in ROUTES}
        self._keys = [_digest(k) for k in service.keys]
        self._admin = None if service.admin_key is None else _digest(service.admin_key)

    def handler(self, route: Route) -> Handler:
        """What the router calls for a route that the guard let through."""
        service = self.service

        async def handle(request: web.Request) -> web.StreamResponse:
            if route.body is None:
                return await route.handler(service, request)
            body = await read_body(request, route.body, seconds=service.limits.body_seconds,
                                   pool=service.work, room=service.bodies,
                                   until=request[CONTEXT].holds)
            return await route.handler(service, request, body)

        return handle

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        service = self.service
        began = monotonic()
        _mark(request, ASKED)
        name = service.new_id("req")
        request[CONTEXT] = Context(name, began, began + service.limits.request_seconds, {
            "x-request-id": name, "X-Content-Type-Options": "nosniff"})
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "(none)"
        route = self._routes.get((request.method, path))
        counted = route is None or route.work
        status = 500
        service.metrics.http_active.inc()
        service.active += counted
        try:
            self._let_in(request, route)
            response = await handler(request)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = 499  # the client is gone
            service.metrics.gave_up("disconnect")
            raise
        except (ConnectionError, asyncio.IncompleteReadError):
            status = 499
            service.metrics.gave_up("disconnect")
            raise asyncio.CancelledError from None
        except Problem as problem:
            status = problem.status
            return self._refusal(request, problem)
        except (SglcError, web.HTTPException) as error:
            found = _http_problem(error) if isinstance(error, web.HTTPException) else (
                problem_of(error))
            status = found.status
            return self._refusal(request, found)
        except Exception as error:
            service.records.failure("failed", error, id=request[CONTEXT].id, path=path)
            return self._refusal(request, problem_of(error))
        finally:
            request[CONTEXT].holds.close()
            service.active -= counted
            service.metrics.http_active.dec()
            self._note(request, path, status, began)

    def _note(self, request: web.Request, path: str, status: int, began: float) -> None:
        service, ended, context = self.service, monotonic(), request[CONTEXT]
        service.metrics.answered(path, status)
        counts = {"prompt_tokens": context.prompt_tokens,
                  "completion_tokens": context.completion_tokens}
        if counts["prompt_tokens"] is not None:
            service.metrics.latency.observe(ended - began)
        if context.first is not None:
            service.metrics.first_token.observe(context.first - began)
            if (tokens := context.completion_tokens or 0) > 1:
                service.metrics.gap.observe((ended - context.first) / (tokens - 1))
        level = logging.INFO if path not in ("/health", "/ready", "/metrics") else logging.DEBUG
        service.records.write("request", level, id=context.id, method=request.method,
                              path=path, status=status, ms=round((ended - began) * 1e3, 1),
                              code=context.code, **counts)
        if service.trace is not None and counts["prompt_tokens"] is not None:
            service.trace.request(path, began, ended, id=context.id, status=status,
                                  **counts)
        if service.telemetry is not None:
            service.telemetry.request(path, status, ended, context, request.headers,
                                      request.url.port)

    def _refusal(self, request: web.Request, problem: Problem) -> web.Response:
        request[CONTEXT].code = problem.code
        if problem.status in (429, 503):
            self.service.metrics.turned_away(problem.code or str(problem.status))
        elif problem.status == 504:
            self.service.metrics.gave_up("deadline")
        response = json_answer(request, problem.body(), problem.status, problem.headers)
        if problem.headers.get("Connection") == "close":
            response.force_close()
        return response

    # -- who may --------------------------------------------------------------------------
    def _let_in(self, request: web.Request, route: Route | None) -> None:
        """Raises Problem 401 or 403 for who may not, 503 while stopping.  What is no route
        needs a key too."""
        service = self.service
        if service.hosts is not None and _host(request) not in service.hosts:
            raise Problem(403, "this Host is not served here", code="host_not_allowed")
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise Problem(403, "requests from other sites' pages are not served",
                          code="cross_site")
        access: Access = "key" if route is None else route.access
        if access != "open" and self._keys:
            given = _given_keys(request)
            allowed = [*self._keys, *([self._admin] if self._admin is not None else [])]
            if access == "admin" and self._admin is not None:
                if _matches(given, [self._admin]):
                    allowed = [self._admin]
                elif _matches(given, self._keys):
                    raise Problem(403, "this route needs the admin key", code="admin_only")
            for key, space in zip(self._keys, service.spaces, strict=True):
                if _matches(given, [key]):
                    request[CONTEXT].space = space
            if not _matches(given, allowed):
                raise Problem(401, "no API key was given" if not given else
                              "the API key is wrong", code="invalid_api_key",
                              headers={"WWW-Authenticate": "Bearer"})
        elif access == "admin" and self._admin is not None and not _matches(
                _given_keys(request), [self._admin]):
            raise Problem(401, "this route needs the admin key", code="invalid_api_key",
                          headers={"WWW-Authenticate": "Bearer"})
        if route is not None and route.work:
            if service.draining:
                raise Problem(503, "the server is stopping", code="draining",
                              headers={"Retry-After": "5", "Connection": "close"})
            if service.stalled:
                raise Problem(503, "the engine makes no progress", code="engine_stalled",
                              headers={"Retry-After": "5"})
            service.gate.check()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _given_keys(request: web.Request) -> list[bytes]:
    """Digests of the keys in a request's headers."""
    found = []
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        found.append(_digest(value.strip()))
    if key := request.headers.get("X-API-Key"):
        found.append(_digest(key))
    return found


def _matches(given: Sequence[bytes], allowed: Sequence[bytes]) -> bool:
    """Whether one of `given` is among `allowed`; takes equally long whichever it is."""
    found = False
    for a in given:
        for b in allowed:
            found |= hmac.compare_digest(a, b)
    return found


def _host(request: web.Request) -> str:
    """The Host header without its port, in lower case."""
    host = request.headers.get("Host", "").lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _http_problem(error: web.HTTPException) -> Problem:
    """aiohttp's own errors: no route, no method, too large."""
    if error.status == 404:
        return Problem(404, "there is no such route", code="not_found")
    if error.status == 405:
        allow = error.headers.get("Allow", "")
        return Problem(405, f"this route takes {allow}", code="method_not_allowed",
                       headers={"Allow": allow})
    if error.status == 413:
        return Problem(413, "the body is too large", code="body_too_large",
                       headers={"Connection": "close"})
    status = error.status if error.status >= 400 else 500
    return Problem(status, error.reason, code="http_error")
