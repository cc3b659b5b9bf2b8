"""The rules of forks and joins, the same for eager and traced prompt states."""

from __future__ import annotations

import warnings
from typing import Any

from sglc.errors import LanguageError, SglcWarning
from sglc.lang.expressions import check_part

MAX_FORK = 100_000  # states of one fork


def gather_names(known: list[Any], children: list[dict[Any, Any]]) -> dict[Any, list[int]]:
    """Variable -> the children that produced it, for variables the parent lacks, in order."""
    out: dict[Any, list[int]] = {}
    for i, variables in enumerate(children):
        for name in variables:
            if name not in known:
                out.setdefault(name, []).append(i)
    return out


def check_index(index: Any) -> None:
    """Raise LanguageError SGLC003 for a name: variables belong to each state of a fork."""
    if isinstance(index, str):
        raise LanguageError("SGLC003", f"the states of a fork have a variable {index!r} each",
                            fixes=[f"name the state: forks[0][{index!r}]",
                                   f"after forks.join(), s[{index!r}] is the list of them"])


def broadcast(other: Any, size: int) -> list[Any]:
    """What each of `size` states is given by `group += other`."""
    if isinstance(other, str):
        raise LanguageError("SGLC002", "a plain string cannot be added to a group of forks",
                            fixes=["append in a loop: for f in forks: f += text",
                                   "give a function of the index: forks += lambda i: text"])
    if callable(other):
        return [other(i) for i in range(size)]
    if isinstance(other, (list, tuple)):
        if len(other) != size:
            raise LanguageError("SGLC002",
                                f"{len(other)} parts were given to a group of {size} forks")
        return list(other)
    check_part(other)
    return [other] * size


def check_fork(size: Any, position_ids_offset: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise LanguageError("SGLC004", f"fork takes a number of at least 1, not {size!r}"[:200])
    if size > MAX_FORK:
        raise LanguageError("SGLC004", f"fork takes a number of at most {MAX_FORK:,}, not {size:,}",
                            fixes=["use run_batch for many independent rows"])
    if position_ids_offset is not None:
        warnings.warn(SglcWarning("SGLC008", "fork ignores position_ids_offset",
                                  why="positions are a function of the prompt's ids"),
                      stacklevel=3)
    return size


def check_join(mode: Any) -> None:
    if mode not in ("gather_variable", "concate_and_append"):
        raise LanguageError("SGLC004", f"unknown join mode {mode!r}",
                            fixes=['use "gather_variable" or "concate_and_append"'])
