"""Constraints over every kind of tokenizer: the bytes of tokens, and masks by brute force."""

from __future__ import annotations

import itertools
import json
import random
import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import pytest
from toy_tokenizers import TEXT
from walks import allowed, walk

import sglc.grammar as grammar
from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.pretokenize import CONFIGS
from sglc.tokens.small import _TEXT, small_bpe
from sglc.tokens.tokenizer import Tokenizer
from sglc.tokens.vocab import Vocab

SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
PREFIXED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, SPACES]}
KINDS = ("bytes", "small", "gpt2", "smollm", "llama3", "qwen2", "fallback", "fallback-prefixed")


def fallback(dummy_prefix: bool) -> BpeTokenizer:
    """A BPE in the manner of Llama 2: spaces as U+2581, "<0xAB>" for what has no token."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, normalizers, trainers

    library = Library(models.BPE())
    library.normalizer = normalizers.Replace(" ", "\u2581")
    library.train_from_iterator([_TEXT, TEXT], trainers.BpeTrainer(
        vocab_size=500, min_frequency=2, show_progress=False, max_token_length=10,
        special_tokens=["<unk>", "<s>", "</s>"]))
    model = json.loads(library.to_str())["model"]
    tokens = dict(model["vocab"])
    for byte in range(256):
        tokens[f"<0x{byte:02X}>"] = len(tokens)
    special = {name: tokens[name] for name in ("<unk>", "<s>", "</s>")}
    return BpeTokenizer(Vocab(
        tokens=tokens, merges=tuple((a, b) for a, b in model["merges"]), special=special,
        normalizer=SPACES, dummy_prefix=dummy_prefix, first_normalizer=PREFIXED,
        byte_level=False, fuse_unk=True, unk_token="<unk>", bos_id=special["<s>"],
        eos_ids=frozenset({special["</s>"]}), bos_token="<s>", eos_token="</s>",
        added={"<think>": len(tokens)}))


@pytest.fixture(scope="module")
def kinds() -> dict[str, Tokenizer]:
    small = small_bpe()
    made: dict[str, Tokenizer] = {"bytes": ByteTokenizer(), "small": small}
    for name in ("gpt2", "smollm", "llama3", "qwen2"):
        v = small.vocab
        made[name] = BpeTokenizer(Vocab(
            tokens=v.tokens, merges=v.merges, special=v.special, eos_ids=v.eos_ids,
            pre_tokenizer=CONFIGS[name],
            normalizer={"type": "NFC"} if name == "qwen2" else None, name=name))
    made["fallback"], made["fallback-prefixed"] = fallback(False), fallback(True)
    return made


def corpus() -> Iterator[str]:
    yield from (_TEXT, TEXT, "", " ", "  ", "\n", " a", "a ", " \n ", "\t", "\x00\x01\x7f")
    yield from (line for line in (_TEXT + TEXT).splitlines())
    rng = random.Random(0)
    letters = [*"abc ABC019 \n\t.,'\"{}<>\\", *"éßñ漢字かな🙂ǅﬁ\u0301\u200d\ufeff\xa0",
               "the ", "ing"]
    for _ in range(300):
        yield "".join(rng.choices(letters, k=rng.randint(1, 25)))
    for _ in range(100):
        yield "".join(chr(c) for c in (rng.randrange(0x110000) for _ in range(8))
                      if not 0xD800 <= c < 0xE000 and c != 0x2581)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_tokens_are_the_text(kinds: dict[str, Tokenizer], kind: str) -> None:
    """What constraints read is what the text is, byte by byte."""
    tokenizer = kinds[kind]
    for text in corpus():
        meant = unicodedata.normalize("NFC", text) if kind == "qwen2" else text
        ids = tokenizer.encode(text)
        assert b"".join(tokenizer.token_bytes(i) for i in ids) == meant.encode(), text
        opened = tokenizer.decode_bytes(tokenizer.encode(text, first=True)).decode()
        prefix = " " if kind == "fallback-prefixed" and text else ""
        assert opened == prefix + meant


# Patterns, and the pieces that their texts are made of, one of each.
FINITE: list[tuple[str, list[list[str]]]] = [
    (r"(The|the) (river|mill|mïll)\.?\n?",
     [["The", "the"], [" "], ["river", "mill", "mïll"], ["", "."], ["", "\n"]]),
    (r" {1,3}[漢字]?x?", [[" ", "  ", "   "], ["", "漢", "字"], ["", "x"]]),
    ("(▁|_| )(a|▁)?", [["▁", "_", " "], ["", "a", "▁"]]),
    ("<(unk|think|s)>", [["<"], ["unk", "think", "s"], [">"]]),
    ("[\x00-\x03é]{2}", [["\0", "\1", "\2", "\3", "é"]] * 2),
    (r"(<0x41>|A) ?(🙂|\\)", [["<0x41>", "A"], ["", " "], ["🙂", "\\"]])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("pattern", "pieces"), FINITE, ids=range(len(FINITE)))
def test_masks_by_brute_force(kinds: dict[str, Tokenizer], kind: str, pattern: str,
                              pieces: list[list[str]]) -> None:
    """A token is allowed iff some text of the (finite) language goes on with its bytes."""
    tokenizer = kinds[kind]
    texts = ["".join(parts).encode() for parts in itertools.product(*pieces)]
    assert all(re.fullmatch(pattern, t.decode()) for t in texts)
    table = tokenizer.byte_table
    control = tokenizer.special_ids | tokenizer.eos_ids
    constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
    states, todo = {b"": constraint.start()}, [b""]
    while todo and len(states) < 120:
        before = todo.pop(0)
        tails = {t[len(before):] for t in texts if t.startswith(before)}
        openings = {t[:n] for t in tails for n in range(1, len(t) + 1)}
        expected = {i for i, token in enumerate(table) if token in openings and i not in control}
        if b"" in tails:
            expected |= tokenizer.eos_ids
        assert allowed(constraint, states[before], tokenizer.vocab_size) == expected, before
        for token in expected - tokenizer.eos_ids:
            text = before + table[token]
            if text not in states:
                states[text] = constraint.advance(states[before], token)
                todo.append(text)


@pytest.mark.parametrize("kind", KINDS)
def test_walks_end_in_a_match(kinds: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = kinds[kind]
    for pattern in (r'\{"name": "[\w ]{1,12}", "age": \d{1,3}\}', r"[^a-z]{3,9}", "(▁| |é|漢)+"):
        constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
        for seed in range(2):
            text = walk(constraint, tokenizer, random.Random(seed), 40)
            assert re.fullmatch(pattern, text), text


def test_two_spellings_of_a_byte(kinds: dict[str, Tokenizer]) -> None:
    """With byte fallback "a" is also <0x61>, and " " also <0x20>: both are allowed."""
    tokenizer = kinds["fallback"]
    assert isinstance(tokenizer, BpeTokenizer)
    ids = tokenizer.vocab.tokens
    constraint = grammar.compile(regex=" a", tokenizer=tokenizer)
    found = allowed(constraint, constraint.start(), tokenizer.vocab_size)
    assert {ids["<0x20>"], ids["\u2581"]} <= found
    after = constraint.advance(constraint.start(), ids["<0x20>"])
    assert allowed(constraint, after, tokenizer.vocab_size) == {ids["a"], ids["<0x61>"]}
    assert np.array_equal(constraint.mask(after), constraint.mask(
        constraint.advance(constraint.start(), ids["\u2581"])))
