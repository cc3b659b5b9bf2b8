"""What all constraints of one tokenizer share: its trie, Runs and compiled constraints.

Kept on the tokenizer object, so that it lives and dies with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from sglc.grammar.charset import CharSet
from sglc.grammar.disk_cache import DiskCache
from sglc.grammar.runs import Run, kept_run
from sglc.grammar.vocab import Vocabulary
from sglc.tokens.tokenizer import Tokenizer

_ATTRIBUTE = "_grammar_index"
T = TypeVar("T")


class Recent:
    """A memo of the most recently used values; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of `key`, made outside of the lock if missing (at worst made twice)."""
        value: T
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                value = self._values[key]
                return value
        value = make()
        with self._lock:
            value = self._values.setdefault(key, value)
            if len(self._values) > self.most:
                self._values.popitem(last=False)
        return value


class TokenIndex:
    """The shared data of one tokenizer's constraints."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.vocab = Vocabulary(tokenizer)
        self.disk = DiskCache.of_environment()
        self.constraints = Recent(256)
        self.runs = Recent(16)
        self.shared = Recent(8)  # what others make of the tokenizer, by name

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenIndex:
        """The index of `tokenizer`, built at the first call and kept on it."""
        found: TokenIndex | None = tokenizer.__dict__.get(_ATTRIBUTE)
        if found is None:
            found = tokenizer.__dict__.setdefault(_ATTRIBUTE, cls(tokenizer))
        return found

    def run(self, charset: CharSet) -> Run:
        return self.runs.get(charset, lambda: kept_run(charset, self.vocab, self.disk))
