"""Running program bodies as they are written: the eager interpreter's entry points."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sglc.config import RunOptions
from sglc.errors import Cancelled, SglcError, users_place
from sglc.lang.calling import CallSignature
from sglc.lang.cells import Sink
from sglc.lang.eager import EagerState
from sglc.lang.strand import Run, Strand
from sglc.lang.streamed_state import StreamedState
from sglc.progress import Progress


@dataclass(slots=True)
class Frame:
    """The program body that runs on this thread: nested calls inherit from it."""

    run: Run
    path: tuple[int, ...] = ()
    calls: int = 0


FRAME: ContextVar[Frame | None] = ContextVar("sglc_frame", default=None)


def cancelled_error() -> Cancelled:
    return Cancelled("SGLC506", "the run was cancelled before it finished")


def start(signature: CallSignature, values: dict[str, Any], target: Any, options: RunOptions,
          seed: int, *, row: int = 0, stream: bool = False,
          batch: Mapping[str, int] | None = None) -> EagerState | StreamedState:
    """Run the body; the state comes back while its gens may still run.

    With `stream` the body runs on a thread of its own.  Raises what the body raises, unless
    streaming (then the first read raises it).
    """
    run = Run(target, options, seed, row, batch=batch, streaming=stream)
    if not stream:
        state = EagerState(run)
        execute(signature, state, values)
        state.go_on()
        return state
    run.stream = Sink(run.condition)
    state = EagerState(run)
    done = threading.Event()

    def body() -> None:
        try:
            execute(signature, state, values)
            state.go_on()
        except BaseException as e:
            state._body_error = e
        finally:
            done.set()
            strand, sink = state._strand, run.stream
            assert sink is not None
            strand.put(lambda me: sink.close(state._body_error or me.error))

    threading.Thread(target=body, name="sglc-body", daemon=True).start()
    return StreamedState(state, done)


def execute(signature: CallSignature, state: EagerState, values: dict[str, Any],
            frame: Frame | None = None) -> None:
    token = FRAME.set(frame or Frame(state._run))
    try:
        state._returned = signature.call(state, values)
    except BaseException as e:
        if isinstance(e, SglcError):
            e.locate(users_place(e.__traceback__))
        state._body_error = e
        raise
    finally:
        FRAME.reset(token)


def nested(frame: Frame, signature: CallSignature, values: dict[str, Any],
           options: RunOptions) -> EagerState:
    """A program called from the body of another: a new prompt, the caller's backend and seed."""
    path = (*frame.path, frame.calls, -1)
    frame.calls += 1
    outer = frame.run
    run = outer if options is outer.options else Run(
        outer.target, options, outer.seed, outer.row, outer.space, outer.batch,
        condition=outer.condition)
    strand = Strand(run, run.empty_prompt())
    state = EagerState(run, path, strand)
    execute(signature, state, values, Frame(run, path))
    return state


def thread_count(num_threads: int | str, rows: int) -> int:
    """SGLang's rule for `num_threads="auto"`."""
    if num_threads == "auto":
        num_threads = max(96, 16 * (os.cpu_count() or 1))
    return max(1, min(int(num_threads), rows))


def run_batch(signature: CallSignature, rows: list[dict[str, Any]], target: Any,
              options: RunOptions, seed: int, first_row: int, *, num_threads: int | str = "auto",
              progress: bool = False, row_numbers: Sequence[int] | None = None,
              batch: Mapping[str, int] | None = None,
              on_row: Callable[[int, Any], None] | None = None) -> list[EagerState]:
    """Run every row's body on a pool of threads; states in order, errors kept in them.

    batch: what orders bags, None where they stand as given.  on_row: called as each row ends.
    """
    numbers = row_numbers or range(first_row, first_row + len(rows))
    states = [EagerState(Run(target, options, seed, n, batch=batch)) for n in numbers]
    stop = threading.Event()
    finished: set[int] = set()

    def one(i: int) -> None:
        state = states[i]
        if stop.is_set():
            state._body_error = cancelled_error()
            return
        try:
            execute(signature, state, rows[i])
            state.go_on()
            state.sync()
            finished.add(i)
        except BaseException as e:
            if state._body_error is None and not isinstance(e, Exception):
                state._body_error = e

    def cancel() -> None:
        stop.set()
        error = cancelled_error()
        for i, state in enumerate(states):
            if i not in finished:
                state._run.cancel(error)

    def each(i: int) -> None:
        if on_row is not None:
            on_row(i, states[i])

    run_all(one, len(rows), thread_count(num_threads, len(rows)), progress, cancel, each)
    return states


def run_all(one: Callable[[int], None], n: int, threads: int, progress: bool,
            cancel: Callable[[], None], each: Callable[[int], None]) -> None:
    """`one(i)` for all i on a pool, then `each(i)` here; on Ctrl-C `cancel()` and come back with
    what is done.  An error of `each` cancels too."""
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work(i: int) -> None:
        try:
            one(i)
        finally:
            finished.put(i)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="sglc-row")
    bar = Progress(n, progress)
    try:
        for i in range(n):
            pool.submit(work, i)
        for _ in range(n):
            i = finished.get()
            bar.step()
            each(i)
    except BaseException as why:
        cancel()
        pool.shutdown(wait=False, cancel_futures=True)
        if not isinstance(why, KeyboardInterrupt):
            raise
        bar.interrupted()
    finally:
        bar.close()
        pool.shutdown(wait=False)
