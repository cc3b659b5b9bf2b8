"""A constraint behind given tokens, whose end a longer token may reach past.

What token healing needs.  The tokens are the end of a prompt.  They come again, one after the
other, but for this: at each of them a longer token may stand that spells all the rest of them and
goes on as the constraint allows.  States: below 0, as many of the tokens are still to come;
otherwise those of the constraint behind them (0 where there is none).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np

from sglc.grammar.constraint import Constraint
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.token_index import TokenIndex
from sglc.grammar.vocab import Vocabulary
from sglc.tokens.tokenizer import Tokenizer

_FREE = 0  # the state of a text without constraint


def prefixed(head: tuple[int, ...], inner: Constraint | None, tokenizer: Tokenizer) -> Prefixed:
    """`head`, then a text of `inner`, or with None any tokens at all.  Kept with the tokenizer."""
    index = TokenIndex.of(tokenizer)
    return index.constraints.get(
        ("prefixed", head, inner), lambda: Prefixed(head, inner, index.vocab))


def goes_on(head: bytes, inner: Constraint | None, tokenizer: Tokenizer) -> bool:
    """Whether some token spells `head` and then what a text of `inner` may begin with."""
    longer = Longer(TokenIndex.of(tokenizer).vocab)
    node = longer.node(head)
    return node >= 0 and any(True for _ in longer.tokens(node, inner))


class Longer:
    """The tokens of a vocabulary that are longer than a text they begin with."""

    def __init__(self, vocab: Vocabulary) -> None:
        self._vocab = vocab
        # Memoryviews give Python ints, and fast.
        self._first, self._byte = vocab.first.data, vocab.byte.data
        self._token = vocab.token.data

    def node(self, text: bytes) -> int:
        """The node of the vocabulary's trie that `text` leads to, -1 if no token begins so."""
        first, byte = self._first, self._byte
        node = 0
        for wanted in text:
            low, high = first[node], first[node + 1]
            node = bisect_left(byte, wanted, low, high)
            if node == high or byte[node] != wanted:
                return -1
        return node

    def letter(self, byte: int) -> int:
        """The token of one byte, -1 if there is none."""
        node = self.node(bytes((byte,)))
        return -1 if node < 0 else self._token[node]

    def all(self, node: int) -> np.ndarray:
        """Those that begin at `node`, twins left out."""
        vocab, low, high = self._vocab, self._first[node], self._first[node + 1]
        found = [np.zeros(0, np.int32)]
        while low < high:  # the nodes of a subtree are consecutive on each level
            found.append(vocab.token[low:high])
            low, high = self._first[low], self._first[high]
        tokens: np.ndarray = np.concatenate(found)
        return tokens[tokens >= 0]

    def tokens(self, node: int, inner: Constraint | None) -> Iterator[int]:
        """Those that begin at `node` (twins left out) and go on as `inner` allows."""
        first, byte, token = self._first, self._byte, self._token
        todo = [(node, None if inner is None else inner.start())]
        while todo:
            node, state = todo.pop()
            for child in range(first[node], first[node + 1]):
                after = state
                if inner is not None:
                    letter = self.letter(byte[child])
                    after = inner.advance(state, letter) if letter >= 0 else None
                    if after is None:
                        continue
                if token[child] >= 0:
                    yield token[child]
                todo.append((child, after))


class Prefixed:
    """A `Constraint` to some tokens and what follows."""

    def __init__(self, head: tuple[int, ...], inner: Constraint | None,
                 vocab: Vocabulary) -> None:
        self.head = head
        self.inner = inner
        self._vocab = vocab
        self._longer = Longer(vocab)
        self._after = _FREE if inner is None else inner.start()
        # What of the head is left, in bytes, by how many tokens are.
        self._rest = [b"".join([vocab.texts[t] for t in head[len(head) - left:]])
                      for left in range(len(head) + 1)]
        self._masks: dict[int, np.ndarray] = {}
        every = np.zeros(vocab.words * 32, dtype=bool)
        every[:vocab.size] = True
        self._every = vocab.pack(every)
        self._every.flags.writeable = False

    def start(self) -> Any:
        return -len(self.head) if self.head else self._after

    def covers(self, state: Any, token_id: int) -> bool:
        """Whether a token in this state is one of the head."""
        left = _left(state)
        return left > 0 and token_id == self.head[-left]

    def mask(self, state: Any) -> np.ndarray:
        """Allowed tokens as packed int32 words; read-only."""
        left = _left(state)
        if not left:
            return self._every if self.inner is None else self.inner.mask(state)
        words = self._masks.get(left)
        if words is None:
            words = self._masks[left] = self._head_mask(left)
        return words

    def advance(self, state: Any, token_id: int) -> Any | None:
        """The state after the token, None where it is not allowed."""
        left = _left(state)
        if not left:
            return state if self.inner is None else self.inner.advance(state, token_id)
        if token_id == self.head[-left]:
            return self._after if left == 1 else state + 1
        text = self._vocab.texts[token_id] if 0 <= token_id < self._vocab.size else b""
        rest = self._rest[left]
        if len(text) <= len(rest) or not text.startswith(rest):
            return None
        return self._read(text[len(rest):])

    def jump(self, state: Any) -> bytes:
        """The bytes that every accepted continuation starts with."""
        left = _left(state)
        if left:
            return self._rest[left] + self.jump(self._after)
        return b"" if self.inner is None else self.inner.jump(state)

    def accepting(self, state: Any) -> bool:
        return not _left(state) and (self.inner is None or self.inner.accepting(state))

    def max_tokens(self) -> int | None:
        """A bound on the tokens of any accepted text, None if unbounded."""
        most = None if self.inner is None else self.inner.max_tokens()
        return None if most is None else len(self.head) + most

    def _read(self, text: bytes) -> Any | None:
        """The state after the head and `text`."""
        state = self._after
        if self.inner is None:
            return state
        if isinstance(self.inner, FsmConstraint):
            return self.inner.read(state, text)
        for byte in text:
            letter = self._longer.letter(byte)
            state = self.inner.advance(state, letter) if letter >= 0 else None
            if state is None:
                return None
        return state

    def _head_mask(self, left: int) -> np.ndarray:
        vocab = self._vocab
        allowed = np.zeros(vocab.words * 32, dtype=bool)
        node = self._longer.node(self._rest[left])
        if node >= 0:
            if self.inner is None:
                allowed[self._longer.all(node)] = True
            elif isinstance(self.inner, FsmConstraint):
                allowed[self.inner.below(node)] = True
            else:
                allowed[list(self._longer.tokens(node, self.inner))] = True
            allowed[vocab.twins] = allowed[vocab.twin_of]
        allowed[self.head[-left]] = True
        words: np.ndarray = vocab.pack(allowed)
        words.flags.writeable = False
        return words


def _left(state: Any) -> int:
    """How many tokens of the head are still to come."""
    return -state if type(state) is int and state < 0 else 0
