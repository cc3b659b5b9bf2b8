"""The eager reference semantics: one prompt, a queue of steps, nothing clever.

A strand runs its steps strictly in order.  A step either finishes at once or starts a model call
and continues when the call's outcome arrives (on the engine's thread).  Nothing blocks here:
reading is done on cells, by whoever reads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sglc.config import RunOptions, resolve
from sglc.lang.cells import Cell, Sink
from sglc.lang.expressions import Gen
from sglc.runtime import calls
from sglc.runtime.calls import Call, Outcome, Target
from sglc.runtime.typed import sample_text
from sglc.tokens.images import PlacedImage, image_text
from sglc.tokens.prompt import Prompt

Step = Callable[["Strand"], "bool | None"]  # True: a call was started, wait for it


@dataclass(eq=False, slots=True)
class Run:
    """What all strands of one program run share."""

    target: Target
    options: RunOptions
    seed: int
    row: int = 0
    space: int | None = None
    batch: Mapping[str, int] | None = None  # texts of the batch, to order bags by (see ir/bags.py)
    stream: Sink | None = None  # the root's text, when streaming
    streaming: bool = False
    condition: threading.Condition = field(default_factory=threading.Condition)
    flying: set[Call] = field(default_factory=set)
    cancelled: BaseException | None = None

    def empty_prompt(self) -> Any:
        """What a state begins with."""
        return self.target.calls.empty_prompt(self.target.tokenizer)

    def cancel(self, error: BaseException) -> None:
        """Stop all model calls of this run; steps that follow fail with `error`."""
        self.cancelled = error
        with self.condition:
            flying = list(self.flying)
        for call in flying:
            self.target.cancel(call.requests)


class Strand:
    """A prompt under construction.  `prompt` is None until a fork's parent reaches the fork."""

    __slots__ = ("base", "busy", "error", "lock", "messages", "open_role", "prompt", "queue",
                 "run", "sink")

    def __init__(self, run: Run, prompt: Prompt | None, sink: Sink | None = None) -> None:
        self.run = run
        self.prompt = prompt
        self.base = prompt
        self.queue: deque[tuple[Step, Cell | None]] = deque()
        self.busy = prompt is None
        self.lock = threading.Lock()
        self.error: BaseException | None = None
        self.sink = sink
        self.messages: list[dict[str, str]] = []
        self.open_role: tuple[str, Prompt] | None = None

    # -- the queue ------------------------------------------------------------------------
    def put(self, step: Step, cell: Cell | None = None) -> None:
        """Queue a step; `cell` fails if the strand fails before or in it."""
        with self.lock:
            self.queue.append((step, cell))
            if self.busy:
                return
            self.busy = True
        self.pump()

    def pump(self) -> None:
        while True:
            with self.lock:
                if not self.queue:
                    self.busy = False
                    return
                step, cell = self.queue.popleft()
            error = self.error or self.run.cancelled
            if error is None:
                try:
                    if step(self):
                        return
                    continue
                except Exception as e:
                    error = e
            self.fail(error, cell)

    def fail(self, error: BaseException, cell: Cell | None) -> None:
        self.error = error
        if cell is not None and not cell.done:
            cell.fail(error)
        if self.sink is not None:
            self.sink.close(error)

    # -- steps ----------------------------------------------------------------------------
    def emit(self, text: str) -> None:
        if self.sink is not None:
            self.sink.push(text)

    def append(self, text: str) -> None:
        def step(me: Strand) -> None:
            assert me.prompt is not None
            me.prompt = me.prompt.append(text)
            me.emit(text)

        self.put(step)

    def append_pieces(self, pieces: tuple[Any, ...]) -> None:
        """Texts and control tokens of a chat template."""
        def step(me: Strand) -> None:
            assert me.prompt is not None
            for piece in pieces:
                if isinstance(piece, str):
                    me.prompt = me.prompt.append(piece)
                    me.emit(piece)
                else:
                    me.prompt = me.prompt.special(piece.id)

        self.put(step)

    def image(self, source: Any) -> None:
        """An image, read at once, by whoever runs the body."""
        target = self.run.target
        before, mark, after = image_text(target.template)
        placed: PlacedImage | Exception
        try:
            placed = target.calls.place_image(target.tokenizer, source)
        except Exception as e:  # for whoever reads what comes of it
            placed = e

        def step(me: Strand) -> None:
            assert me.prompt is not None
            if isinstance(placed, Exception):
                raise placed
            me.prompt = me.prompt.append(before).image(placed, mark).append(after)
            me.emit(before + mark + after)

        self.put(step)

    def begin_message(self, role: str) -> None:
        def step(me: Strand) -> None:
            assert me.prompt is not None
            me.open_role = (role, me.prompt)

        self.put(step)

    def end_message(self) -> None:
        def step(me: Strand) -> None:
            assert me.prompt is not None and me.open_role is not None
            role, begin = me.open_role
            content = me.prompt.text_since(begin).lstrip()
            me.messages.append({"role": role, "content": content})
            me.open_role = None

        self.put(step)

    def gen(self, part: Gen, path: tuple[int, ...], cell: Cell) -> None:
        run = self.run
        options = resolve(part.params, run.options)
        constraint = run.target.calls.constraint_for(options, run.target.tokenizer)
        keys = calls.gen_keys(options, run.seed, run.row, path)

        def step(me: Strand) -> bool:
            assert me.prompt is not None
            sent = 0

            def on_text(piece: str) -> None:
                nonlocal sent
                sent += len(piece)
                me.emit(piece)
                if cell.sink is not None:
                    cell.sink.push(piece)

            def done(outcome: Outcome) -> None:
                if outcome.error is None:
                    on_text(sample_text(outcome.value)[sent:])
                me.finish(call, outcome, cell)

            listen = me.run.streaming and (me.sink is not None or cell.sink is not None)
            call = Call()
            me.start(call)
            started = run.target.calls.start_gen(
                run.target, me.prompt, options, keys, constraint, done, space=run.space,
                on_text=on_text if listen else None, reader=part.reader)
            me.started(call, started)
            return True

        self.put(step, cell)

    def select(self, choices: tuple[str, ...], method: str, cell: Cell) -> None:
        def step(me: Strand) -> bool:
            assert me.prompt is not None

            def done(outcome: Outcome) -> None:
                if outcome.error is None:
                    me.emit(outcome.value)
                    if cell.sink is not None:
                        cell.sink.push(outcome.value)
                me.finish(call, outcome, cell)

            call = Call()
            me.start(call)
            started = me.run.target.calls.start_select(
                me.run.target, me.prompt, choices, method, done, space=me.run.space)
            me.started(call, started)
            return True

        self.put(step, cell)

    def start(self, call: Call) -> None:
        with self.run.condition:
            self.run.flying.add(call)

    def started(self, call: Call, requests: Call) -> None:
        call.requests = requests.requests
        if self.run.cancelled is not None:  # cancelled between the check and the submission
            self.run.target.cancel(call.requests)

    def finish(self, call: Call, outcome: Outcome, cell: Cell) -> None:
        with self.run.condition:
            self.run.flying.discard(call)
        if outcome.error is not None:
            self.fail(outcome.error, cell)
        else:
            assert self.prompt is not None
            self.prompt = outcome.extend(self.prompt)
            cell.set(outcome.value, outcome.meta)
        self.pump()

    def fork(self, children: list[Strand]) -> None:
        """Give the children this prompt once the strand reaches this point."""
        def step(me: Strand) -> None:
            for child in children:
                child.prompt = child.base = me.prompt
                child.messages = list(me.messages)
                child.open_role = me.open_role
                child.pump()

        def fail_children(cell: Cell) -> None:
            if cell.error is not None:
                for child in children:
                    child.error = cell.error
                    child.pump()

        cell = Cell(self.run.condition)
        cell.when_done(fail_children)
        self.put(step, cell)

    def join_text(self, children: list[Strand]) -> None:
        """Append what finished children added since their fork, in order, ids kept."""
        def step(me: Strand) -> None:
            for child in children:
                assert me.prompt is not None and child.prompt is not None and child.base is not None
                me.emit(child.prompt.text_since(child.base))
                me.prompt = me.prompt.append_since(child.prompt, child.base)

        self.put(step)

    def snapshot(self, take: Callable[[Strand], Any], cell: Cell) -> None:
        """Set `cell` to `take(strand)` once everything queued before is done."""
        self.put(lambda me: cell.set(take(me)), cell)
