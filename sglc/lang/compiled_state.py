"""The state of a compiled run: the same reading side over a plan instance."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from sglc.lang.cells import Cell, Sink
from sglc.lang.eager import AFTERWARDS, EagerState
from sglc.lang.prompt_surface import RoleTracker
from sglc.lang.state import ContinuedState, unknown_variable
from sglc.lang.strand import Run, Strand
from sglc.runtime.executor import Instance
from sglc.runtime.job import Job
from sglc.runtime.text_stream import ROOT, TextStream
from sglc.runtime.typed import opened, sample_text, spelled


class CompiledState(ContinuedState):
    """What `run` gives back in compiled mode.  Appending to it continues eagerly."""

    __slots__ = ("_instance", "_later", "_outputs", "_sinks")

    def __init__(self, instance: Instance, sinks: dict[Any, Sink] | None = None) -> None:
        self._instance = instance
        self._outputs = instance.outputs
        self._sinks = sinks  # when streaming
        self._later: EagerState | None = None

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self._instance.job.seed

    @property
    def ret_value(self) -> Any:  # type: ignore[override]
        """What the body returned (waits for the end)."""
        self._outputs.wait()
        return self._outputs.value()

    # -- reading --------------------------------------------------------------------------
    def get_var(self, name: str | None, timeout: float | None = None) -> Any:
        if self._later is not None:
            return self._later.get_var(name, timeout)
        return opened(self._settled(name, timeout))

    def _settled(self, name: str | None, timeout: float | None = None) -> Any:
        """The value; one of a schema as the text it is made of."""
        try:
            return self._outputs.wait_variable(name, timeout)
        except KeyError:
            error = self._outputs.failure()
            if error is not None:
                raise error from None
            raise unknown_variable(name, self.variable_names()) from None

    def get_meta_info(self, name: str | None, timeout: float | None = None) -> Any:
        if self._later is not None:
            return self._later.get_meta_info(name, timeout)
        try:
            self._outputs.wait_variable(name, timeout)
        except KeyError:
            error = self._outputs.failure()
            if error is not None:
                raise error from None
            return None
        return self._outputs.meta(name)

    def text(self) -> str:
        if self._later is not None:
            return self._later.text()
        return self._outputs.wait_prompt().text()  # type: ignore[no-any-return]

    def token_ids(self) -> list[int]:
        if self._later is not None:
            return self._later.token_ids()
        return self._outputs.wait_prompt().token_ids().tolist()  # type: ignore[no-any-return]

    def messages(self) -> list[dict[str, str]]:
        if self._later is not None:
            return self._later.messages()
        self._outputs.wait_prompt()
        return [dict(m) for _, m in sorted(self._outputs.messages, key=lambda x: x[0])]

    def sync(self) -> None:
        if self._later is not None:
            self._later.sync()
        else:
            self._outputs.wait_prompt()
            self._outputs.wait()

    def error(self) -> BaseException | None:
        if self._later is not None:
            return self._later.error()
        try:
            self._outputs.wait()
        except Exception as e:
            return e
        return None

    def variable_names(self) -> list[Any]:
        if self._later is not None:
            return self._later.variable_names()
        return self._outputs.names() if self._outputs.ended else list(self._instance.job.names)

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        if self._later is not None:
            yield from self._later.text_iter(var_name)
        elif self._sinks is None:
            yield self.text() if var_name is None else spelled(self._settled(var_name))
        elif var_name is None:
            yield from self._sinks[ROOT]
        elif var_name not in self._sinks:  # no gen of the first segment makes it
            yield spelled(self._settled(var_name))
        else:
            sent = 0
            for piece in self._sinks[var_name]:
                sent += len(piece)
                yield piece
            rest = sample_text(self._settled(var_name))[sent:]
            if rest:
                yield rest

    # -- going on -------------------------------------------------------------------------
    def _continue(self) -> EagerState:
        """An eager state that goes on where this run ended."""
        if self._later is None:
            instance, outputs = self._instance, self._outputs
            outputs.wait()
            job = instance.job
            assert outputs.result is not None
            run = Run(job.target, job.options, job.seed, instance.row, batch=job.batch)
            strand = Strand(run, outputs.result[0])
            strand.messages = self.messages()
            later = EagerState(run, AFTERWARDS, strand,
                               roles=RoleTracker(tuple(m["role"] for m in strand.messages)))
            for name, value in outputs.values.items():
                cell = Cell(run.condition)
                cell.set(value, outputs.meta(name))
                later._cells[name] = cell
            later._returned = self.ret_value
            self._later = later
        return self._later


def open_stream(job: Job, names: tuple[Any, ...], condition: threading.Condition) -> tuple[
        TextStream, dict[Any, Sink]]:
    """A text stream for an instance, and the sinks that readers iterate over."""
    sinks = {name: Sink(condition) for name in (ROOT, *names)}

    def push(name: Any, piece: str) -> None:
        if name in sinks:
            sinks[name].push(piece)

    def close(error: BaseException | None) -> None:
        for name, sink in sinks.items():  # a variable may be complete all the same: see text_iter
            sink.close(error if name is ROOT else None)

    return TextStream(job.code, push, close), sinks
