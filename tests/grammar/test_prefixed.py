"""Constraints behind held-back tokens: every mask is the brute-force set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sglc import grammar
from sglc.grammar.llguidance_backend import LlguidanceConstraint
from sglc.grammar.prefixed import goes_on, prefixed
from sglc.tokens.small import small_bpe

RECURSIVE = {"$ref": "#/$defs/t", "$defs": {"t": {
    "type": "array", "items": {"$ref": "#/$defs/t"}}}}
INNER: dict[str, dict[str, Any]] = {
    "free": {}, "regex": {"regex": r"//[a-z]+|[ a-z]{2,5}\n"}, "choices": {"choices": ["the", " "]},
    "json": {"json_schema": {"type": "object", "properties": {"a": {"type": "boolean"}},
                             "required": ["a"]}},
    "recursive": {"json_schema": RECURSIVE},
}
HEADS = ["a", " ", "the ", "e", "http:", "\n\n", "[", "é"]


def allowed(words: np.ndarray, size: int) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")[:size])
               .tolist())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_bpe()


def read(constraint: Any, tokenizer: Any, text: bytes) -> Any:
    """The state after some bytes, one token each; None if they are not allowed."""
    letters = {t: i for i, t in reversed(list(enumerate(tokenizer.byte_table))) if len(t) == 1}
    state = constraint.start()
    for byte in text:
        state = constraint.advance(state, letters[bytes((byte,))])
        if state is None:
            return None
    return state


@pytest.mark.parametrize("kind", INNER)
def test_masks_and_states(tokenizer: Any, kind: str) -> None:
    inner = grammar.compile(**INNER[kind], tokenizer=tokenizer) if INNER[kind] else None
    assert isinstance(inner, LlguidanceConstraint) == (kind == "recursive")
    table = tokenizer.byte_table
    plain = [i for i, t in enumerate(table)
             if t and i not in tokenizer.special_ids and i not in tokenizer.eos_ids]
    healed = 0
    for text in HEADS:
        head = tuple(tokenizer.encode(text))
        constraint = prefixed(head, inner, tokenizer)
        assert constraint is prefixed(head, inner, tokenizer)
        state = constraint.start()
        for i, own in enumerate(head):
            rest = tokenizer.decode_bytes(head[i:])
            longer = {t for t in plain if len(table[t]) > len(rest) and table[t].startswith(rest)
                      and (inner is None
                           or read(inner, tokenizer, table[t][len(rest):]) is not None)}
            assert allowed(constraint.mask(state), tokenizer.vocab_size) == {own} | longer
            assert goes_on(rest, inner, tokenizer) == bool(longer)
            assert constraint.jump(state).startswith(rest) and not constraint.accepting(state)
            assert constraint.covers(state, own)
            for token in plain:
                after = constraint.advance(state, token)
                assert (after is not None) == (token in longer or token == own)
                if token in longer and token != own:
                    healed += 1
                    assert not constraint.covers(state, token)
                    wanted = 0 if inner is None else read(inner, tokenizer,
                                                          table[token][len(rest):])
                    assert after == wanted or (inner is not None and np.array_equal(
                        constraint.mask(after), inner.mask(wanted)))
            state = constraint.advance(state, own)
        if inner is None:
            assert allowed(constraint.mask(state), tokenizer.vocab_size) == set(
                range(tokenizer.vocab_size))
            assert all(constraint.advance(state, t) is not None for t in tokenizer.eos_ids)
            assert constraint.accepting(state) and constraint.jump(state) == b""
        else:
            assert state == inner.start() and constraint.mask(state) is inner.mask(state)
    assert healed > 0 or kind in ("json", "recursive")
