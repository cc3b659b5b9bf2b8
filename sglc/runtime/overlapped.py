"""The engine's thread where steps run on a device: the next step is prepared while one runs.

What a step draws is not known then; the scheduler is told to assume that nothing ends by it, and
the device fills in the tokens.  A sequence that did end has one row in vain in the next step.
Where the next step needs the outcome (constraints, penalties, no room), it is waited for first.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Protocol

from sglc.runtime.launch import Outcome
from sglc.runtime.loop import EngineLoop, _failed
from sglc.runtime.step import Step

_log = logging.getLogger("sglc.runtime")


class Flight(Protocol):
    """A step that runs.  places: by sample, the number by which the next step may name what it
    draws (an id of -1 - place)."""

    step: Step
    places: list[int]


class Overlapping(Protocol):
    """A launcher that does not wait."""

    def start(self, step: Step) -> Flight:
        """Let a step run, after those before it."""

    def finish(self, flight: Flight) -> Outcome:
        """Wait for its outcome."""


class OverlappedLoop(EngineLoop):
    """An `EngineLoop` whose launcher is `Overlapping`."""

    _launcher: Any

    def _turns(self) -> None:
        flight: Flight | None = None
        while True:
            step, lost = None, None
            with self._lock:
                while not (flight or self._inbox or self.scheduler.busy or self._closing):
                    self._idle = True
                    self._rest.notify_all()
                    self._wake.wait()
                self._idle = False
                if self._closing:
                    break
                try:
                    self._admit()
                    if flight is None:
                        step = self.scheduler.prepare()
                    elif self.scheduler.assume(flight.step, flight.places):
                        step = self.scheduler.prepare(ahead=True)
                except Exception as error:
                    self._panic(error)
                    lost, flight = flight, None
            self._tell()
            if lost is not None:  # what it writes to is still in its hands
                self._settle(lost)
            flight = self._turn(flight, step)
            self._tell()
        if flight is not None:
            self._settle(flight)

    def _turn(self, flight: Flight | None, step: Step | None) -> Flight | None:
        """Let `step` run, take the outcome of `flight`; what runs then."""
        later, broken = None, None
        if step is not None:
            try:
                later = self._launcher.start(step)
            except Exception as error:
                broken = error
        if flight is not None:
            try:
                outcome = self._launcher.finish(flight)
            except Exception as error:
                self._abort([flight.step, *([step] if step else [])], error)
                if later is not None:
                    self._settle(later)
                return None
            with self._lock:
                try:
                    self._take(flight.step, outcome)
                except Exception as error:
                    self._panic(error)
                    if later is not None:
                        self._settle(later)
                    return None
        if broken is not None and step is not None:
            self._abort([step], broken)
        return later

    def _settle(self, flight: Flight) -> None:
        """Wait for a step whose outcome nobody wants."""
        try:
            self._launcher.finish(flight)
        except Exception as error:
            _log.warning("a model step failed", exc_info=error)

    def _abort(self, steps: list[Step], error: Exception) -> None:
        _log.warning("a model step failed", exc_info=error)
        with self._lock:
            self.scheduler.counters.failed += 1
            try:
                self.scheduler.abort(steps, partial(_failed, error))
            except Exception as second:
                self._panic(second)
