"""A tokenizer, models and a chat template small enough to follow by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from sglc.tokens.tokenizer import Tokenizer

BOS, EOS, CONTROL, FIRST, WIDE = 256, 257, 258, 259, 260
PIECES = [b"ab", b"cd", b" b", b"\n\n", b"bc", "é".encode(), b"x\xc3", b"\xa9y", b"Z!"]


class Toy(Tokenizer):
    """Bytes, three control tokens, a mark for text that opens a prompt, and wider tokens that
    are used wherever they fit, the longest first."""

    bos_id, eos_ids, vocab_size = BOS, frozenset({EOS}), WIDE + len(PIECES)

    def __init__(self) -> None:
        self.special = {"<bos>": BOS, "<eos>": EOS, "<ctl>": CONTROL}

    def encode(self, text: str, first: bool = False) -> list[int]:
        raw, ids = text.encode(), [FIRST] if first else []
        while raw:
            fits = [i for i in range(WIDE, self.vocab_size) if raw.startswith(self.token_bytes(i))]
            ids.append(max(fits, key=lambda i: len(self.token_bytes(i)), default=raw[0]))
            raw = raw[len(self.token_bytes(ids[-1])):]
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        if token_id >= WIDE:
            return PIECES[token_id - WIDE]
        return bytes([token_id]) if token_id < 256 else b""

    def encode_raw(self, text: str) -> list[int]:
        raise NotImplementedError


class Model:
    """Logits from a function of the ids: {token: logit}, 0 for the others."""

    def __init__(self, rule: Callable[[list[int]], dict[int, float]]) -> None:
        self.rule = rule
        self.asked: list[list[int]] = []

    def logits(self, ids: list[int]) -> np.ndarray:
        self.asked.append(list(ids))
        out = np.zeros(Toy.vocab_size, np.float32)
        for token, value in self.rule(ids).items():
            out[token] = value
        return out


class Template:
    """`<ctl>` and the role open a message; the count of messages before it closes it."""

    stop = ("Z!",)

    def open(self, roles: tuple[str, ...], role: str) -> tuple[Any, ...]:
        return SimpleNamespace(id=CONTROL), role[0] + ":"

    def close(self, roles: tuple[str, ...], role: str) -> tuple[Any, ...]:
        return (f"{len(roles)};",)


def wide(piece: str | bytes) -> int:
    return WIDE + PIECES.index(piece.encode() if isinstance(piece, str) else piece)


def says(*tokens: int) -> Model:
    """A model that says these tokens, then EOS, whatever the prompt."""
    state = {"n": 0}

    def rule(ids: list[int]) -> dict[int, float]:
        state["n"] += 1
        return {tokens[state["n"] - 1] if state["n"] <= len(tokens) else EOS: 9.0}

    return Model(rule)
