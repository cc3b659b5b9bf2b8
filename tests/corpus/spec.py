"""What a module of the corpus exports, and random texts to call its programs with.

A module has a list `SPECS` and a list `CALLS`.  Its host functions add `(tag, name, *arguments)`
to `CALLS`, where the tag is an argument that no other row of a batch has.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Arguments = Callable[[random.Random], dict[str, Any]]

_WORDS = (
    "amber anchor apple basil bridge candle canyon cedar cinder clover comet copper coral cotton "
    "delta ember falcon fern flint garden ginger glacier hammer harbor hazel island ivory jasmine "
    "juniper kettle lantern lemon linen maple marble meadow mirror nectar north oasis olive onyx "
    "orchid paper pebble pepper pine quartz quiver raven ribbon river saddle saffron salmon silver "
    "sparrow summit thistle timber tulip umber valley velvet walnut willow winter yarrow zephyr "
    "naïve café señor").split()


@dataclass(frozen=True, slots=True)
class Spec:
    """A program and random arguments for one call of it.  fails: rows may end in an error."""

    program: Any
    arguments: Arguments
    fails: bool = False


def word(rng: random.Random) -> str:
    return rng.choice(_WORDS)


def words(rng: random.Random, low: int, high: int) -> list[str]:
    """`low` to `high` different words."""
    return rng.sample(_WORDS, rng.randint(low, high))


def text(rng: random.Random, low: int = 3, high: int = 7) -> str:
    """A phrase of `low` to `high` words."""
    return " ".join(words(rng, low, high))


def question(rng: random.Random) -> str:
    start = rng.choice(("Why does the", "Where is the", "Who found the", "How many steps has the"))
    return f"{start} {text(rng, 2, 5)}?"


def tag(rng: random.Random) -> str:
    """A name that no other row has."""
    return f"{rng.getrandbits(48):012x}"
