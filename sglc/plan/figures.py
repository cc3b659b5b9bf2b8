"""Predicted figures, each with its mark, as a table or plain data, alone or beside actual ones.

Knows nothing of where the figures come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

Mark = Literal["=", "<=", "~"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A prediction.

    value, mark: what it is exactly (`=`), at most (`<=`), or probably (`~`); a figure without a
    bound has None and `<=`.  expected: the estimate, for exact figures the value.
    """

    value: float | None
    mark: Mark
    expected: float

    @property
    def exact(self) -> bool:
        return self.mark == "="

    def holds(self, actual: float) -> bool:
        """Whether an actual figure is as predicted; an estimate promises nothing."""
        if self.mark == "=":
            return actual == self.value
        return self.mark == "~" or self.value is None or actual <= self.value

    def __str__(self) -> str:
        if self.mark == "=":
            return f"= {_number(self.value)}"
        if self.mark == "~" or self.value is None:
            return f"~ {_number(self.expected)}"
        return f"<= {_number(self.value)} (~ {_number(self.expected)})"

    def json(self) -> dict[str, Any]:
        return {"value": self.value, "mark": self.mark, "expected": self.expected}


def exact(value: int) -> Figure:
    return Figure(value, "=", value)


def at_most(value: int | None, expected: float) -> Figure:
    return Figure(value, "<=", expected if value is None else min(expected, value))


def about(expected: float) -> Figure:
    return Figure(expected, "~", expected)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch will cost, from an empty cache.  Tokens, unless said otherwise; `str` is a
    table.

    prefill: prompt positions that are computed; an estimate where the pool may not hold
        `working_set`, as what is evicted may have to be computed again.  least: the lower bound
        of that, each distinct prefix once (see `lower_bound.py`).  alone: the same if rows shared
        nothing.  select: those of `least` that only the choices of selects need.
    decode: positions that generation writes, sampled or forced.
    kv_peak: the most that running sequences hold at once, with `at_once` rows at a time.
    working_set: what would hold everything.
    calls: model calls (a select is one).  chain: the most of them one after the other.
    steps: model steps.  seconds: their time, None if the backend was not calibrated.
    rows: instances; unknown: those of them that cannot be predicted, and are left out.
    complete: whether the calls counted are all that there can be.
    """

    prefill: Figure
    least: Figure
    alone: Figure
    select: Figure
    decode: Figure
    kv_peak: Figure
    working_set: Figure
    calls: Figure
    chain: Figure
    steps: Figure
    seconds: Figure | None
    rows: int
    at_once: int
    unknown: int = 0
    complete: bool = True

    def json(self) -> dict[str, Any]:
        """The same as plain data."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            out[f.name] = value.json() if isinstance(value, Figure) else value
        return out

    def __str__(self) -> str:
        return _table([(what, str(figure)) for what, figure in self._lines()],
                      f"{self.rows} rows" + (f", {self.unknown} left out" if self.unknown else "")
                      + ("" if self.at_once >= self.rows else f", {self.at_once} at a time"))

    def _lines(self) -> list[tuple[str, Figure]]:
        lines = [("prefill", self.prefill)]
        if self.least != self.prefill:
            lines.append(("  with memory for all", self.least))
        if self.alone != self.least:
            lines.append(("  if rows shared nothing", self.alone))
        if self.select.expected:
            lines.append(("  of choices only", self.select))
        lines += [("decode", self.decode), ("KV peak", self.kv_peak),
                  ("working set", self.working_set), ("model calls", self.calls),
                  ("  one after the other", self.chain), ("model steps", self.steps)]
        if self.seconds is not None:
            lines.append(("seconds", self.seconds))
        return lines

    def beside(self, before: Any, after: Any, seconds: float | None = None) -> Beside:
        """This prediction beside what a run did.

        before, after: the backend's `stats()` around it, with `reset_peak` called before;
        seconds: its wall time, if it was taken.
        """
        def spent(*names: str) -> int:
            return sum([int(getattr(after, n) - getattr(before, n)) for n in names])

        return self.against(
            prefill=spent("prefill_tokens"), decode=spent("decode_tokens", "forced_tokens"),
            kv_peak=after.kv_peak, steps=spent("forward_passes"), seconds=seconds)

    def against(self, *, prefill: int, decode: int, kv_peak: int, steps: int,
                seconds: float | None = None) -> Beside:
        """This prediction beside actual figures, as named here."""
        lines = [Line("prefill", self.prefill, prefill), Line("decode", self.decode, decode),
                 Line("KV peak", self.kv_peak, kv_peak), Line("model steps", self.steps, steps)]
        if self.seconds is not None and seconds is not None:
            lines.append(Line("seconds", self.seconds, seconds))
        return Beside(tuple(lines))


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: predicted, and what it was."""

    what: str
    predicted: Figure
    actual: float

    @property
    def holds(self) -> bool:
        return self.predicted.holds(self.actual)


@dataclass(frozen=True, slots=True)
class Beside:
    """Predicted figures beside actual ones; `str` is a table."""

    lines: tuple[Line, ...]

    def __getitem__(self, what: str) -> Line:
        return next(line for line in self.lines if line.what == what)

    def json(self) -> dict[str, Any]:
        return {line.what.replace(" ", "_").lower(): {
            **line.predicted.json(), "actual": line.actual, "holds": line.holds}
            for line in self.lines}

    def __str__(self) -> str:
        return _table([(line.what, str(line.predicted),
                        _number(line.actual) + ("" if line.holds else "  NOT AS PREDICTED"))
                       for line in self.lines], "", ("", "predicted", "actual"))


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return str(value) if isinstance(value, int) else (
        f"{value:.3g}" if abs(value) < 10 else str(round(value)))


def _table(rows: Sequence[tuple[str, ...]], title: str,
           head: tuple[str, ...] | None = None) -> str:
    every = [*([head] if head else []), *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    lines = [title] if title else []
    lines += ["  " + "  ".join([cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
                               ).rstrip() for row in every]
    return "\n".join(lines)
