"""Running the scheduler's steps on a device without waiting for them.

`start` lets a step run; what it draws stays on the device, where the next step reads it, and is
copied to the host, where `finish` waits for it.  Nothing here touches the tree or the pool.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sglc.runtime.cuda.device_sampler import DeviceSampler
from sglc.runtime.cuda.simple_draws import SimpleDraws, draws_of
from sglc.runtime.cuda.staging import staging
from sglc.runtime.launch import Outcome
from sglc.runtime.rules import Clock
from sglc.runtime.sampler import REPORT, Top
from sglc.runtime.step import Step
from sglc.tokens.images import in_vocabulary

if TYPE_CHECKING:
    from sglc.runtime.cuda.runner import DeviceRunner

_SCORE_ROWS = 512  # rows of logits in memory at once


@dataclass(slots=True)
class Reports:
    """Log-probabilities on their way: of some samples (`rows`), with the `top` best."""

    rows: list[int]
    own: Tensor
    best: Tensor
    ids: Tensor


@dataclass(slots=True)
class DeviceFlight:
    """A step that runs; see `overlapped.Flight`.  The tensors are the host's.

    drawn: int64 (1, K) or (2, K), tokens, and where they have led to, if there are tables."""

    step: Step
    places: list[int] = field(default_factory=list)
    hidden: Tensor | None = None
    drawn: Tensor | None = None
    reports: Reports | None = None
    scores: list[tuple[list[int], Tensor]] = field(default_factory=list)
    began: Any = None
    done: Any = None


@dataclass(slots=True)
class StepTime:
    """Where the time of one step went: seconds on the host to let it run and to wait for it, and
    on the device (None on the CPU).

    ahead: whether it was prepared before the step before it was over.  ruling: seconds that
    constraints took on the host since the step before was launched; jumps: tokens that came
    without being drawn since then.
    """

    tokens: int
    rows: int
    started: float
    launched: float
    waited: float
    finished: float
    device: float | None
    ahead: bool = False
    ruling: float = 0.0
    jumps: int = 0


class DeviceLauncher:
    """An `Overlapping` launcher (see `overlapped.py`) on one runner.

    model_seconds: time spent letting steps run and waiting for them.  timeline: if a list, it
    gets a `StepTime` of every step.  clock: what constraints cost elsewhere on the host.
    """

    def __init__(self, runner: DeviceRunner, sampler: DeviceSampler) -> None:
        self.runner = runner
        self.model_seconds = 0.0
        self.timeline: list[StepTime] | None = None
        self._sampler = sampler
        self._simple = SimpleDraws(sampler)
        self._on_gpu = runner.device.type == "cuda"
        self._told = (0.0, 0)
        self._times: dict[int, tuple[float, float, bool, float, int]] = {}

    @property
    def clock(self) -> Clock:
        return self._simple.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._simple.clock = clock

    def launch(self, step: Step) -> Outcome:
        """Run a step and wait for it."""
        return self.finish(self.start(step))

    @torch.inference_mode()
    def start(self, step: Step) -> DeviceFlight:
        """Let a step run after those before it.  Whatever cannot be launched is raised."""
        started = time.perf_counter()
        flight = DeviceFlight(step)
        timed = self.timeline is not None and self._on_gpu
        if timed:
            flight.began = torch.cuda.Event(enable_timing=True)
            flight.began.record()
        drawn = None
        parts = []
        drawing = self._simple.of(step)
        if step.size:
            hidden, drawn = self.runner.run(step.batch(), drawing)
            parts.append(hidden)
        if step.cached:  # named -1, -2, ...: so in reverse, at the end
            parts.append(torch.stack(step.cached[::-1]))
        flight.hidden = torch.cat(parts) if len(parts) > 1 else parts[0] if parts else None
        if step.samples:
            self._draw(flight, drawn)
        if step.scores:
            self._score(flight)
        if self._on_gpu:
            flight.done = torch.cuda.Event(enable_timing=timed)
            flight.done.record()
        now = time.perf_counter()
        self.model_seconds += now - started
        if self.timeline is not None:
            ahead = any(seq.ids[-1] < 0 for seq, _ in step.samples)
            ruling, jumps = self.clock.seconds + self._sampler.mask_seconds, self.clock.jumps
            self._times[step.number] = (started, now, ahead, ruling - self._told[0],
                                        jumps - self._told[1])
            self._told = ruling, jumps
        return flight

    @torch.inference_mode()
    def finish(self, flight: DeviceFlight) -> Outcome:
        """Wait for a step's outcome.  Whatever the device raises is raised."""
        started = time.perf_counter()
        if flight.done is not None:
            self.runner.wait(flight.done)
        now = time.perf_counter()
        self.model_seconds += now - started
        step = flight.step
        out = Outcome(flight.hidden)
        if flight.drawn is not None:
            drawn = flight.drawn.numpy()[:, flight.places]
            out.tokens = drawn[0].tolist()
            if len(drawn) > 1:
                began = time.perf_counter()
                out.states = drawn[1].astype(np.int32).tolist()  # the tables' numbers left out
                self._sampler.mask_seconds += time.perf_counter() - began
        if flight.reports is not None:
            out.reports = _reports(step, flight.reports, out.tokens)
        if flight.scores:
            out.scores = [0.0] * len(step.scores)
            for cells, values in flight.scores:
                for i, value in zip(cells, values.tolist(), strict=True):
                    out.scores[i] = value
        if self.timeline is not None and step.number in self._times:
            began, launched, ahead, ruling, jumps = self._times.pop(step.number)
            took = flight.began.elapsed_time(flight.done) / 1e3 if flight.began else None
            self.timeline.append(StepTime(step.size, len(step.samples), began, launched, started,
                                          now, took, ahead, ruling, jumps))
        return out

    def _draw(self, flight: DeviceFlight, drawn: Tensor | None) -> None:
        """A token for each sample, on the device and on its way to the host.  drawn: those that
        have been drawn already, if they have."""
        step, runner = flight.step, self.runner
        if drawn is not None:
            flight.places = [k for _, k in step.samples]
        else:
            flight.places = list(range(len(step.samples)))
            draws, after = draws_of(step)
            logits = self._logits(flight.hidden, [k for _, k in step.samples])
            drawn = self._sampler.draw(logits, draws, after, runner.drawn[1])
            runner.drawn[:len(drawn), :len(draws)] = drawn
            rows = [i for i, draw in enumerate(draws) if draw.flags & REPORT]
            if rows:
                self._report(flight, logits, drawn[0], rows)
        flight.drawn = self._to_host(drawn)

    def _report(self, flight: DeviceFlight, logits: Tensor, tokens: Tensor,
                rows: list[int]) -> None:
        most = max(flight.step.samples[i][0].draw.params.top_logprobs for i in rows)
        if len(rows) < len(tokens):
            at = self._upload(rows)
            logits, tokens = logits[at], tokens[at]
        found = self.runner.kernels.logprobs(logits, tokens, max(most, 0))
        flight.reports = Reports(rows, *map(self._to_host, found))

    def _score(self, flight: DeviceFlight) -> None:
        """Log-probabilities of given tokens, on their way to the host."""
        wanted = [(k, in_vocabulary(seq.ids[at + 1])) for seq, at, k in flight.step.scores]
        by_row: dict[int, list[int]] = {}
        for i, (k, _) in enumerate(wanted):
            by_row.setdefault(k, []).append(i)
        rows = list(by_row)
        for first in range(0, len(rows), _SCORE_ROWS):
            block = rows[first:first + _SCORE_ROWS]
            logits = self._logits(flight.hidden, block)
            cells = [i for k in block for i in by_row[k]]
            if len(cells) > len(block):
                copies = [r for r, k in enumerate(block) for _ in by_row[k]]
                for at in range(0, len(cells), _SCORE_ROWS):
                    some = self._upload(copies[at:at + _SCORE_ROWS])
                    self._give_scores(flight, logits[some], cells[at:at + _SCORE_ROWS], wanted)
            else:
                self._give_scores(flight, logits, cells, wanted)

    def _give_scores(self, flight: DeviceFlight, logits: Tensor, cells: list[int],
                     wanted: list[tuple[int, int]]) -> None:
        ids = self._upload([wanted[i][1] for i in cells])
        own = self.runner.kernels.logprobs(logits, ids, 0)[0]
        flight.scores.append((cells, self._to_host(own)))

    def _logits(self, hidden: Tensor | None, rows: list[int]) -> Tensor:
        """Logits of these rows of the hidden states, which may come more than once."""
        assert hidden is not None
        if rows != list(range(len(hidden))):
            hidden = hidden.index_select(0, self._upload([k % len(hidden) for k in rows]))
        return self.runner.logits(hidden)

    def _upload(self, numbers: list[int]) -> Tensor:
        staged = staging(len(numbers), self.runner.device)
        staged.numpy()[:] = numbers
        return staged.to(self.runner.device, non_blocking=True)

    def _to_host(self, values: Tensor) -> Tensor:
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=self._on_gpu)
        return host.copy_(values, non_blocking=True)


def _reports(step: Step, found: Reports, tokens: list[int]) -> dict[int, tuple[float, Top]]:
    out = {}
    own, best, ids = found.own.tolist(), found.best.tolist(), found.ids.tolist()
    for i, value, values, names in zip(found.rows, own, best, ids, strict=True):
        top = step.samples[i][0].draw.params.top_logprobs
        if tokens[i] >= 0:
            likely = tuple(zip(values[:top], names[:top], strict=True)) if top > 0 else ()
            out[i] = value, likely
    return out
