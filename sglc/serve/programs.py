"""`POST /v1/programs`: a compiled program on a batch of rows, planned as one unit.

The program is IR text of the prompt dialect, as `sglc compile` and the tracer print it.  It runs
as it would in the client's process: same passes, same plan, same sampling keys.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from aiohttp import web

from sglc import config
from sglc.backends.wire import NotPlain, decode, encode
from sglc.config import RunOptions
from sglc.errors import Cancelled, SglcError
from sglc.ir.bags import text_counts
from sglc.ir.parser import parse
from sglc.ir.verifier import verify
from sglc.lang.lowering import Lowered, lower
from sglc.passes.base import PassContext
from sglc.runtime.dispatch import dispatcher_of
from sglc.runtime.executor import Instance
from sglc.runtime.job import Job
from sglc.serve.answers import json_answer
from sglc.serve.context import CONTEXT
from sglc.serve.problems import Problem, problem_of
from sglc.serve.program_check import Bounds, refuse
from sglc.serve.requests import ProgramRequest
from sglc.serve.service import Service
from sglc.serve.waiting import within

_KEPT = 64  # lowered programs


class Programs:
    """The programs that were lowered last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, Lowered] = OrderedDict()
        self._lock = threading.Lock()

    def lowered(self, service: Service, body: ProgramRequest, options: RunOptions) -> Lowered:
        """The program through the passes; in a thread.  Raises Problem 400 or SglcError."""
        backend = service.backend
        may_stop = bool(options.stop or backend.template.stop or options.stop_token_ids
                        or options.n != 1 or options.heal)
        greedy = 0.0 if options.temperature == 0 else None
        outputs = None if body.outputs is None else tuple(body.outputs)
        key = (body.ir, may_stop, options.max_tokens, greedy, len(body.rows), body.level,
               outputs, tuple(body.without))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        module = parse(body.ir, file="<request>")
        refuse(module)
        verify(module)
        found = lower(module, PassContext(
            backend.tokenizer, backend.template, len(body.rows), may_stop, options.max_tokens,
            temperature=greedy), body.level, outputs=outputs, without=tuple(body.without))
        service.metrics.lowered(found.records)
        with self._lock:
            self._kept[key] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def _programs(service: Service) -> Programs:
    if service.programs is None:
        service.programs = Programs()
    found: Programs = service.programs
    return found


class _Run:
    """The rows of one request."""

    def __init__(self, service: Service, body: ProgramRequest, space: int | None) -> None:
        self.service = service
        self.body = body
        self.loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self.problem: Problem | None = None
        self.instances: list[Instance] = []
        self._left = len(body.rows)
        self._lock = threading.Lock()
        self._closed = False
        self._started = False
        self.space = space
        self._own: int | None = None  # a space of this run alone
        self.options = RunOptions()

    def prepare(self) -> None:
        """Check, lower, lay out; in a thread."""
        service, body = self.service, self.body
        given = {k: tuple(v) if isinstance(v, list) else v
                 for k, v in body.options.model_dump().items() if v is not None}
        options = replace(RunOptions(), **config.check(given))
        try:
            rows = [{str(k): decode(v) for k, v in row.items()} for row in body.rows]
        except NotPlain as error:
            raise Problem(400, f"rows: {error}", param="rows", code="invalid_value") from None
        low = _programs(service).lowered(service, body, options)
        program = next(iter(low.traced.programs.values()))
        names = {a.name for a in program.args}
        tokenizer = service.backend.tokenizer
        widest = max(map(len, tokenizer.byte_table), default=1)
        context = service.backend.core.runner.context_length
        calls = 0
        for number, row in enumerate(rows):
            if set(row) != names:
                raise Problem(400, f"row {number} must have the arguments {sorted(names)}",
                              param=f"rows.{number}", code="invalid_value")
            calls = max(calls, Bounds(program, row, options, widest, context).calls)
        numbers = body.row_numbers or list(range(len(rows)))
        if len(numbers) != len(rows):
            raise Problem(400, "row_numbers must be as many as rows", param="row_numbers",
                          code="invalid_value")
        self.options = options
        if self.space is None:
            self.space = self._own = service.backend.new_space()
        batch = body.batch if body.batch is not None else (
            text_counts(rows) if body.level >= 3 else None)
        self.plan = dispatcher_of(service.backend)
        jobs: dict[Any, Job] = {}
        bound = tuple(dict.fromkeys(op.attrs["name"] for op in program.walk()
                                    if op.name == "prompt.bind"))
        for number, row in zip(numbers, rows, strict=True):
            key = low.rounds(row)
            if key not in jobs:
                jobs[key] = Job(low.code(row), service.backend, options, body.seed, self.space,
                                names=bound, batch=batch, plan=self.plan)
            self.instances.append(Instance(jobs[key], body.first_row + number, row, self._end))
        self.jobs = jobs

    def start(self) -> None:
        """Start all rows; in a thread.  Raises Problem 429 if there is no room."""
        with self._lock:
            if self._closed:
                return
            self.service.gate.enter(len(self.instances))
            self._started = True
        if self.plan is not None:
            self.plan.start_all(sorted(self.instances, key=lambda i: i.row))
            return
        for job in self.jobs.values():
            job.start_all([i for i in self.instances if i.job is job])

    def _end(self, instance: Instance) -> None:
        self.service.gate.leave()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._give_up()
            self._tell()

    def _tell(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.ended.set)
        except RuntimeError:
            return

    def abort(self, problem: Problem) -> None:
        self.problem = problem
        self.ended.set()

    def close(self) -> None:
        """Cancel rows that have not ended.  Idempotent."""
        with self._lock:
            self._closed = True
            started, left = self._started, self._left
        if not started:
            self.service.control.submit(self._give_up)
        elif left:
            self.service.control.submit(self._cancel)

    def _give_up(self) -> None:
        own, self._own = self._own, None
        self.service.backend.drop_space(own)

    def _cancel(self) -> None:
        error = Cancelled("SGLC506", "the request was cancelled")
        for instance in self.instances:
            instance.cancel(error)

    def answer(self) -> list[dict[str, Any]]:
        """What each row came to."""
        return [row_answer(i) for i in self.instances]


def row_answer(instance: Instance) -> dict[str, Any]:
    """One row's variables, text, messages and error as JSON data."""
    error = instance.failure()
    out: dict[str, Any] = {"row": instance.row, "error": None}
    try:
        out["variables"] = [[encode(name), encode(instance.values[name])]
                            for name in instance.job.names if name in instance.values
                            and not _failed(instance.values[name])]
        metas = {name: instance.meta(name) for name in instance.metas}
        out["metas"] = [[encode(name), encode(meta)] for name, meta in metas.items()
                        if meta is not None and not _failed(meta)]
        out["messages"] = [dict(m) for _, m in sorted(instance.messages, key=lambda x: x[0])]
        result = instance.result
        if error is None and result is not None:
            out["text"] = result[0].text()
            out["token_ids"] = result[0].token_ids().tolist()
            out["returned"] = encode(result[1]) if len(result) > 1 else None
    except NotPlain as why:
        error = Problem(400, f"a result is not plain data: {why}", code="unsupported")
    if error is not None:
        out["error"] = _error(error)
    return out


def _failed(value: Any) -> bool:
    from sglc.runtime.executor import Failed

    return isinstance(value, Failed)


def _error(error: BaseException) -> Mapping[str, Any]:
    """An error of a row: one of sglc's by its code, one of Python's by its class."""
    if isinstance(error, SglcError):
        return {"type": type(error).__name__, "code": error.diagnostic.code,
                "message": error.diagnostic.what}
    if isinstance(error, Problem):
        return {"type": "EngineError", "code": "SGLC503", "message": error.message}
    return {"type": type(error).__name__, "code": None, "message": str(error)[:2000]}


async def programs(service: Service, request: web.Request,
                   body: ProgramRequest) -> web.StreamResponse:
    """Answer one request."""
    run = _Run(service, body, request[CONTEXT].space)
    service.flights.add(run)
    try:
        await service.compiled(run.prepare)
        await service.in_pool(service.work, run.start)
        try:
            left = max(0.0, request[CONTEXT].deadline - monotonic())
            await within(run.ended.wait(), left)
        except asyncio.TimeoutError:
            raise Problem(504, "the request took longer than it may",
                          code="deadline_exceeded") from None
        if run.problem is not None:
            raise run.problem
        rows = await service.in_pool(service.work, run.answer)
        metas = [m for i in run.instances for _, m in i.metas.values() if isinstance(m, dict)]
        name = service.new_id("prog")
        request[CONTEXT].asks(name, run.options)
        request[CONTEXT].cached_tokens = sum(m.get("cached_tokens", 0) for m in metas)
        request[CONTEXT].completion_tokens = sum(m.get("completion_tokens", 0) for m in metas)
        request[CONTEXT].prompt_tokens = sum(m.get("prompt_tokens", 0) for m in metas)
        return json_answer(request, {"id": name, "object": "program.run",
                                     "seed": body.seed, "rows": rows})
    except (ValueError, TypeError, KeyError, IndexError) as error:
        if isinstance(error, SglcError):
            raise
        raise Problem(422, f"the program failed: {type(error).__name__}: {error}",
                      code="program_failed") from None
    except RecursionError:
        raise problem_of(Problem(400, "the program nests too deeply", param="ir",
                                 code="invalid_program")) from None
    finally:
        run.close()
        service.flights.discard(run)
