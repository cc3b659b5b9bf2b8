"""What a workload is: a program, rows for it from a seed, and two sizes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sglc.lang.expressions import Expr, gen

Rows = list[dict[str, Any]]

_WORDS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work number night "
    "point home water room mother area money story fact month lot right study book eye job word "
    "business issue side kind head house service friend father power hour game line end member "
    "law car city community name").split()


@dataclass(frozen=True, slots=True)
class Size:
    """How large a workload is.

    rows: instances.  words: of the text that a row brings (each, where it brings several).
    tokens: of its long generations.  shared: words that many rows have in common.  latency:
    seconds that a call of a host tool takes.
    """

    rows: int
    words: int
    tokens: int
    shared: int = 0
    latency: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """A benchmark program with its rows.

    about: what it does, in a line.  program: makes it for a size.  batch: (size, seed) -> rows.
    small: for a CPU; full: as it is measured on GPUs.  gains: whether anything can be gained by
    knowing the batch; those without are controls.
    """

    name: str
    about: str
    program: Callable[[Size], Any]
    batch: Callable[[Size, int], Rows]
    small: Size
    full: Size
    gains: bool = True


def text(words: int, *seed: object) -> str:
    """So many common words, about a token each; the same for the same seed."""
    draw = random.Random("/".join(map(str, seed)))
    return " " + " ".join([draw.choice(_WORDS) for _ in range(words)])


def questions(size: Size, seed: int) -> Rows:
    """Rows of one text each, `q`."""
    return [{"q": text(size.words, "question", seed, i)} for i in range(size.rows)]


def fixed(name: str, tokens: int, **more: Any) -> Expr:
    """A gen of exactly so many tokens."""
    return gen(name, max_tokens=tokens, ignore_eos=True, **more)
