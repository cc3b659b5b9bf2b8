"""What a hostile program is.

A case names what has to come out: "ok" (compiled is eager), "raises" (both modes raise this type,
or this code), "refused" (it cannot be made a program), or "endless" (Python itself would never
end: the compiler must, and say where).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """A program body, its arguments, and what has to come out."""

    name: str
    fn: Any
    arguments: tuple[Any, ...] = ()
    outcome: str = "ok"
    error: Any = None


CASES: list[Case] = []


def case(*arguments: Any, outcome: str = "ok", error: Any = None) -> Callable[[Any], Any]:
    """Register the function below as a case."""
    def register(fn: Any) -> Any:
        CASES.append(Case(fn.__name__, fn, arguments, outcome, error))
        return fn

    return register


def add(name: str, fn: Any, *arguments: Any, outcome: str = "ok", error: Any = None) -> None:
    CASES.append(Case(name, fn, arguments, outcome, error))
