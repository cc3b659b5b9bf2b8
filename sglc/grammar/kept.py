"""A description's syntax tree and automaton, from files where another process has made them.

Two keys: a description (a pattern's text and the like) names the canonical text of its tree, which
names the automaton.  So equal languages written alike share one file, and a description seen
before is not even parsed.  Knows no tokens: automata do not depend on them.
"""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from sglc.grammar.automaton import Automaton
from sglc.grammar.disk_cache import DiskCache
from sglc.grammar.nfa import Limits, TooLarge
from sglc.grammar.syntax import Node, canonical

_WORTH = 24  # states, from which on an automaton is kept


class KeptText:
    """`source`: what the description is, as a value whose `repr` tells all of it; `parse` makes
    its tree, when that is needed."""

    def __init__(self, source: Any, parse: Callable[[], Node], disk: DiskCache) -> None:
        self.parse = parse
        self.disk = disk
        # What parsing depends on, besides the text.
        self.key = f"text {sys.version_info[:2]} {unicodedata.unidata_version} {source!r}"
        self.known = False

    @cached_property
    def node(self) -> Node:
        return self.parse()

    @cached_property
    def canonical(self) -> str:
        """A hash of the tree's canonical text."""
        arrays = self.disk.load(self.key)
        if arrays is not None and "digest" in arrays:
            self.known = True
            return arrays["digest"].tobytes().hex()
        return hashlib.sha256(canonical(self.node).encode()).hexdigest()

    def automaton(self, limits: Limits) -> Automaton:
        """Raises TooLarge past the limits, at once where that is known."""
        key = f"automaton {limits!r} {self.canonical}"
        arrays = self.disk.load(key)
        if arrays is not None:
            if "too large" in arrays:
                raise TooLarge(arrays["too large"].tobytes().decode("utf-8", "replace"))
            try:
                return Automaton.from_arrays(arrays)
            except (KeyError, ValueError):
                pass  # made by something else; made again below
        try:
            made = Automaton(self.node, limits)
        except TooLarge as large:
            self.keep(key, {"too large": np.frombuffer(str(large).encode(), np.uint8)})
            raise
        if len(made.accepting) >= _WORTH or made.front.nodes > 1:
            self.keep(key, made.arrays())
        return made

    def keep(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        self.disk.store(key, arrays)
        if not self.known:
            digest = np.frombuffer(bytes.fromhex(self.canonical), np.uint8)
            self.disk.store(self.key, {"digest": digest})
