"""Canonical jump-forward: the tokens that a constraint's forced bytes leave no choice about.

The rule.  Where every accepted continuation of a state starts with the same bytes, they are
tokenized after the text before them, as the tokenizer encodes any text.  If a token begins where
they do, the tokens they consist of are the only ones allowed, one after the other, up to the first
byte at which a longer token could begin that reaches past them and that the constraint would take.
What is left of them is held back: there the plain mask holds.  The rule is applied again after the
next token that it did not dictate.

It belongs to decoding: it holds whether dictated tokens are sampled or appended.  A generation is
a run of its own, so its first token begins a text: what is forced there depends on the constraint
alone, and is known ahead of time.  Knows tokenizers and constraints, no engine.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any

import numpy as np

from sglc.grammar.token_index import Recent, TokenIndex
from sglc.tokens.tokenizer import Tokenizer

_CONTEXT = 32  # bytes of text (at least, if there are as many) that tokenizing looks back on
REACHES = 2, 6  # last tokens that it looks at first
_KEPT = 512  # remembered ends of forced text
_REMEMBERED = 4096  # remembered answers


class Canonical:
    """The rule for one tokenizer and a model whose ids end at `vocab_size`.

    What it says of a state and the text before it is remembered, so that rows and requests that
    come by there again look it up.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        vocab = TokenIndex.of(tokenizer).vocab
        self._encode = tokenizer.encode
        self._sure_border = tokenizer.sure_border
        self.table = tokenizer.byte_table
        self._size = vocab_size
        self._barred = tokenizer.special_ids | tokenizer.eos_ids
        self._longest = vocab.longest
        # Memoryviews give Python ints, and fast.
        self._first, self._byte, self._token = vocab.first.data, vocab.byte.data, vocab.token.data
        self._letters = [-1] * 256  # byte -> the token of it alone
        for child in range(self._first[0], self._first[1]):
            self._letters[self._byte[child]] = self._token[child]
        self.initials = np.array([piece[0] if piece else -1 for piece in self.table], np.int16)
        self._borders = Recent(_KEPT)
        self._known = Recent(_REMEMBERED)

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocab_size: int | None = None) -> Canonical:
        """The rule that all who ask for this tokenizer (and size of a model) share."""
        size = min(tokenizer.vocab_size, vocab_size or tokenizer.vocab_size)
        rule: Canonical = TokenIndex.of(tokenizer).shared.get(
            ("canonical", size), lambda: cls(tokenizer, size))
        return rule

    def tokens(self, constraint: Any, state: Any, ids: array[int], start: int) -> tuple[int, ...]:
        """The tokens that must come next, where `ids[start:]` have been generated and led to
        `state`; none where there is a choice at once."""
        forced = constraint.jump(state)
        if not forced:
            return ()
        return self.after(constraint, state, self.before(ids, start, forced[:1])[0], forced)

    def after(self, constraint: Any, state: Any, before: bytes, forced: bytes) -> tuple[int, ...]:
        """The tokens that must come next after the text `before`, where `forced` must."""
        found: tuple[int, ...] = self._known.get(
            (constraint, state, before),
            lambda: tuple(self._tokens(constraint, state, before, forced)))
        return found

    def first(self, constraint: Any) -> tuple[int, ...]:
        """The tokens that every generation under the constraint begins with."""
        return self.tokens(constraint, constraint.start(), array("q"), 0)

    def _tokens(self, constraint: Any, state: Any, before: bytes, forced: bytes) -> list[int]:
        data = before + forced
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data" or error.start < len(before):
                return []
            data = data[:error.start]  # all but the beginning of a character
            text = data.decode()
        pieces = self._pieces(text, data, len(before))
        if not pieces or any(token >= self._size for token, _ in pieces):
            return []
        state = _after(constraint, state, [token for token, _ in pieces])
        if state is None:
            return []
        tail = data[max(len(before), len(data) - self._longest + 1):]
        border = self._borders.get(
            (constraint, state, tail), lambda: self._border(constraint, state, tail))
        limit = len(data) - len(tail) + border
        return [token for token, end in pieces if end <= limit]

    def sole(self, words: np.ndarray) -> int:
        """The only token that a mask allows; -1 if there are more, or it ends the text."""
        if np.count_nonzero(words) != 1:
            return -1
        at = int(np.flatnonzero(words)[0])
        word = int(words[at]) & 0xFFFFFFFF
        token = at * 32 + word.bit_length() - 1
        alone = not word & (word - 1) and token < self._size and token not in self._barred
        return token if alone else -1

    def before(self, ids: array[int], start: int, then: bytes) -> tuple[bytes, int]:
        """The last `_CONTEXT` bytes generated, extended to begin with a token and a character, or
        as many of them as can make a difference if `then` follows; and how many of the last tokens
        tell that it is these (`REACHES`, or more): then they are the same whatever came before
        them, however the text is cut into tokens.  0 if it is not sure."""
        table, sure_border = self.table, self._sure_border
        n = len(ids)
        for reach in REACHES:
            data = b"".join([table[i] for i in ids[max(start, n - reach):]])
            border = sure_border(data + then)
            if border and len(data) - border < _CONTEXT:
                return data[border:], reach
        at, data = n, b""
        while at > start and (len(data) < _CONTEXT or data[0] & 0xC0 == 0x80):
            at -= 1
            data = table[ids[at]] + data
            border = sure_border(data + then)
            if border:
                return data[border:], n - at if len(data) - border < _CONTEXT else 0
        return data, 0

    def _pieces(self, text: str, data: bytes, start: int) -> list[tuple[int, int]]:
        """The tokens of `text`, the bytes `data`, that begin at or after byte `start`, with
        where they end; none if there is no border at `start`, or they do not spell `data`."""
        at, out = 0, []
        for token in self._encode(text):
            piece = self.table[token]
            if not piece or not data.startswith(piece, at):
                return []
            if at < start < at + len(piece):
                return []
            at += len(piece)
            if at > start:
                out.append((token, at))
        return out if at == len(data) else []

    def _border(self, constraint: Any, end: Any, tail: bytes) -> int:
        """The first byte of `tail` at which a token could begin that is longer than what is left
        of it, and goes on as the constraint allows in its state `end`; its length if none can."""
        first, byte = self._first, self._byte
        for i in range(len(tail)):
            node = 0
            for wanted in tail[i:]:
                low, high = first[node], first[node + 1]
                node = bisect_left(byte, wanted, low, high)
                if node == high or byte[node] != wanted:
                    break
            else:
                if self._goes_on(constraint, end, node):
                    return i
        return len(tail)

    def _goes_on(self, constraint: Any, state: Any, node: int) -> bool:
        """Whether the constraint takes, byte by byte, what some token has after `node`."""
        first, byte, token = self._first, self._byte, self._token
        todo = [(node, state)]
        while todo:
            node, state = todo.pop()
            for child in range(first[node], first[node + 1]):
                letter = self._letters[byte[child]]
                after = constraint.advance(state, letter) if letter >= 0 else None
                if after is not None:
                    if token[child] >= 0:
                        return True
                    todo.append((child, after))
        return False


def _after(constraint: Any, state: Any, tokens: list[int]) -> Any:
    """The constraint's state after these tokens, None where it does not allow them."""
    together = getattr(constraint, "advance_all", None)
    if together is not None:
        return together(state, tokens)
    for token in tokens:
        state = constraint.advance(state, token)
        if state is None:
            return None
    return state
