"""`POST /v1/programs`: a compiled program on a batch of rows, planned as one unit.

The program is IR text of the prompt dialect, as `sglc compile` and the tracer print it.  It runs
as it would in the client's process: same passes, same plan, same sampling keys.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import Any

from aiohttp import web

from sglc import config
from sglc.backends.sent_images import image_arguments
from sglc.backends.wire import NotPlain, decode
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
from sglc.serve.context import CONTEXT, Context
from sglc.serve.pictures import Unreadable
from sglc.serve.problems import Problem, problem_of
from sglc.serve.program_check import (
    MAX_ALL_STEPS,
    Bounds,
    logprobs_of,
    refuse,
    with_images,
)
from sglc.serve.requests import ProgramRequest
from sglc.serve.row_answers import row_answer
from sglc.serve.service import Service
from sglc.serve.waiting import within

_KEPT, _KEPT_TEXT = 64, 4_000_000  # lowered programs, and the characters of their IR


class Programs:
    """The programs that were lowered last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, Lowered] = OrderedDict()
        self._text = 0
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
            if key not in self._kept:
                self._text += len(body.ir)
            self._kept[key] = found
            while len(self._kept) > _KEPT or (self._text > _KEPT_TEXT and len(self._kept) > 1):
                old, _ = self._kept.popitem(last=False)
                self._text -= len(old[0])
        return found


def _programs(service: Service) -> Programs:
    if service.programs is None:
        service.programs = Programs()
    found: Programs = service.programs
    return found


class _Run:
    """The rows of one request."""

    def __init__(self, service: Service, body: ProgramRequest, space: int | None,
                 images: list[Any], holds: ExitStack) -> None:
        self.images = images
        self.holds = holds  # what is held until the request is answered
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
        self.plan: Any = None
        self.jobs: dict[Any, Job] = {}
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
        pictured = image_arguments(program) or ()
        rows = [with_images(pictured, row, self.images) for row in rows]
        names = {a.name for a in program.args}
        tokenizer = service.backend.tokenizer
        widest = max(map(len, tokenizer.byte_table), default=1)
        context = service.backend.core.runner.context_length
        calls = steps = 0
        for number, row in enumerate(rows):
            if self._closed:  # nobody waits for it any more
                return
            if set(row) != names:
                raise Problem(400, f"row {number} must have the arguments {sorted(names)}",
                              param=f"rows.{number}", code="invalid_value")
            bounds = Bounds(program, row, options, widest, context)
            calls, steps = max(calls, bounds.calls), steps + bounds.steps
            if steps > MAX_ALL_STEPS:
                raise Problem(400, f"the rows take more than {MAX_ALL_STEPS} operations together; "
                              "send fewer at a time", param="rows", code="program_too_large")
        numbers = body.row_numbers or list(range(len(rows)))
        if len(numbers) != len(rows):
            raise Problem(400, "row_numbers must be as many as rows", param="row_numbers",
                          code="invalid_value")
        self.options = options
        with self._lock:
            if self._closed:
                return
            service.logprobs.hold(len(rows) * calls * logprobs_of(program, options, context),
                                  self.holds)
            if self.space is None:
                self.space = self._own = service.backend.new_space()
        batch = body.batch if body.batch is not None else (
            text_counts(rows) if body.level >= 3 else None)
        self.plan = dispatcher_of(service.backend)
        jobs = self.jobs
        bound = tuple(dict.fromkeys(op.attrs["name"] for op in program.walk()
                                    if op.name == "prompt.bind"))
        for number, row in zip(numbers, rows, strict=True):
            key = low.rounds(row)
            if key not in jobs:
                jobs[key] = Job(low.code(row), service.backend, options, body.seed, self.space,
                                names=bound, batch=batch, plan=self.plan)
            self.instances.append(Instance(jobs[key], body.first_row + number, row, self._end))

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


async def _images(service: Service, body: ProgramRequest, context: Context) -> list[Any]:
    """The images that a body has; of one that cannot be read, why: it is an error where the
    program uses it, and only there."""
    out: list[Any] = []
    if len(body.images) > (most := service.pictures.limits.images):
        raise Problem(400, f"a request has at most {most} images", param="images",
                      code="invalid_value")
    for text in body.images:
        try:
            out += await service.pictures.place([text], param="images", until=context.holds,
                                                deadline=context.deadline)
        except Unreadable as problem:
            out.append(problem.error)
    return out


async def programs(service: Service, request: web.Request,
                   body: ProgramRequest) -> web.StreamResponse:
    """Answer one request."""
    context = request[CONTEXT]
    images = await _images(service, body, context)
    run = _Run(service, body, context.space, images, context.holds)
    service.flights.add(run)
    try:
        await service.compiled(run.prepare)
        await service.in_pool(service.work, run.start)
        try:
            left = max(0.0, context.deadline - monotonic())
            await within(run.ended.wait(), left)
        except asyncio.TimeoutError:
            raise Problem(504, "the request took longer than it may",
                          code="deadline_exceeded") from None
        if run.problem is not None:
            raise run.problem
        rows = await service.in_pool(service.work, run.answer)
        metas = [m for i in run.instances for _, m in i.outputs.metas.values()
                 if isinstance(m, dict)]
        name = service.new_id("prog")
        context.asks(name, run.options)
        context.cached_tokens = sum(m.get("cached_tokens", 0) for m in metas)
        context.completion_tokens = sum(m.get("completion_tokens", 0) for m in metas)
        context.prompt_tokens = sum(m.get("prompt_tokens", 0) for m in metas)
        return await service.made(json_answer, request, {
            "id": name, "object": "program.run", "seed": body.seed, "rows": rows}, heavy=True)
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
