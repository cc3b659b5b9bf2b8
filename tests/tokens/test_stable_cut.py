from __future__ import annotations

import dataclasses
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.pretokenize import CONFIGS, provably_cuttable
from sglc.tokens.small import small_bpe
from sglc.tokens.text import scalar_text

# What the patterns treat specially, next to arbitrary characters.
ATOMS = [
    "'", "'", "r", "e", "l", "v", "s", "R", "\u017f", "a", "the", "1", "٣", "²", "½", " ", " ",
    "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u0085", "\u180e", "\x1c", "!", ".", ",", "_",
    "\"", "\u0301", "\u0338", "=", "é", "日", "。", "か", "\u3099", "\u1100", "\u1161", "\u11a8",
    "\u09c7", "\u09be", "ß", "😀", "\u200d", "\ud83d", "\x04", "\u2126", "\u0344"]
TEXT = st.lists(st.one_of(st.sampled_from(ATOMS), st.characters()), max_size=14).map("".join)


def _tokenizer(pre: str, nfc: bool = False) -> BpeTokenizer:
    vocab = small_bpe().vocab
    return BpeTokenizer(dataclasses.replace(
        vocab, pre_tokenizer=CONFIGS[pre], normalizer={"type": "NFC"} if nfc else None))


def _with_window(tokenizer: BpeTokenizer, window: int) -> BpeTokenizer:
    tokenizer._rule = dataclasses.replace(tokenizer._rule, window=window)
    return tokenizer


TOKENIZERS = {
    "gpt2": _tokenizer("gpt2"), "smollm": _tokenizer("smollm"), "llama3": _tokenizer("llama3"),
    "qwen2": _tokenizer("qwen2"), "qwen2-nfc": _tokenizer("qwen2", nfc=True)}


def _pieces(tokenizer: BpeTokenizer, text: str) -> list[str]:
    text = scalar_text(text)
    if tokenizer.vocab.normalizer:
        text = unicodedata.normalize("NFC", text)
    return [piece for piece, _ in tokenizer._plain.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("which", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(a=TEXT, b=TEXT, window=st.sampled_from([1, 3, 64]))
@example("don'r", "e", 64)
@example("don'", "t", 64)
@example("a \n ", "\n", 64)
@example("x!\n  ", "\nb", 64)
@example("a  ", "b", 1)
@example("a  ", "1", 64)
@example("12 <", "\u0338", 64)
@example("d\u0301", "\u0323", 64)  # B composes with the d
def test_no_appended_text_changes_what_is_before_the_cut(
        which: str, a: str, b: str, window: int) -> None:
    tokenizer = _with_window(TOKENIZERS[which], window)
    ids, whole = tokenizer.encode(a), tokenizer.encode(a + b)
    k, chars = tokenizer.stable_cut(a, ids)
    assert whole[:k] == ids[:k]
    assert whole == ids[:k] + tokenizer.encode((a + b)[chars:])
    # ids can agree by luck, pieces cannot
    border = tokenizer._rule.border(scalar_text(a))
    before = len(_pieces(tokenizer, a)) - len(_pieces(tokenizer, a[border:]))
    assert _pieces(tokenizer, a + b) == (
        _pieces(tokenizer, a)[:before] + _pieces(tokenizer, (a + b)[border:]))


@pytest.mark.parametrize("which", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(a=TEXT, letter=st.sampled_from("xxxéłπжאعकกあア平한"),
       sign=st.sampled_from(' \n.,;:!?(){}[]"'), b=TEXT)
@example("'l", "x", " ", "l")
@example("a", "x", ".", "\u0338")
@example("12", "x", " ", "3")
@example("e\u0301", "한", '"', "\u11a8")
def test_encoding_restarts_at_a_sure_border(which: str, a: str, letter: str, sign: str,
                                            b: str) -> None:
    tokenizer = TOKENIZERS[which]
    data = scalar_text(f"{a}{letter}{sign}{b}").encode()
    at = tokenizer.sure_border(data)
    assert at >= len(scalar_text(a).encode()) + 1
    head, tail = data[:at].decode(), data[at:].decode()
    assert tokenizer.encode(head + tail) == tokenizer.encode(head) + tokenizer.encode(tail)
    assert _pieces(tokenizer, head + tail) == _pieces(tokenizer, head) + _pieces(tokenizer, tail)


def test_little_is_held_back() -> None:
    tokenizer = _with_window(TOKENIZERS["smollm"], 64)
    text = "The river runs by the mill, and it doesn't stop there. " * 50
    held = []
    for end in range(200, 900):
        ids = tokenizer.encode(text[:end])
        k, chars = tokenizer.stable_cut(text[:end], ids)
        held.append(end - chars)
        assert len(ids) - k <= 9
    assert sum(held) / len(held) < 4


def test_composition_keeps_the_class_of_the_base() -> None:
    def kind(char: str) -> str:
        major = unicodedata.category(char)[0]
        return "n" if char in "\r\n" else "s" if char.isspace() else (
            major if major in "LN" else "other")

    for char in map(chr, range(0x110000)):
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and parts[0][0] != "<" and unicodedata.is_normalized("NFC", char):
            assert kind(chr(int(parts[0], 16))) == kind(char)


def test_starters_compose_with_nothing_before_them() -> None:
    from sglc.tokens.pretokenize import _STARTER

    seconds = set()
    for char in map(chr, range(0x110000)):
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and parts[0][0] != "<":
            seconds.add(chr(int(parts[1], 16)))
    for char in map(chr, range(0x10000)):
        if _STARTER.fullmatch(char):
            canonical = unicodedata.normalize("NFD", char)
            assert unicodedata.combining(canonical[0]) == 0 and canonical[0] not in seconds


def test_only_proven_configurations_can_cut(small: BpeTokenizer) -> None:
    def made(**change: object) -> bool:
        return BpeTokenizer(dataclasses.replace(small.vocab, **change)).can_cut

    gpt2 = CONFIGS["gpt2"]
    assert all(made(pre_tokenizer=CONFIGS[n]) for n in ("gpt2", "smollm", "llama3", "qwen2"))
    assert not made(pre_tokenizer=CONFIGS["none"]) and not made(pre_tokenizer=None)
    assert not made(pre_tokenizer=gpt2, normalizer={"type": "NFKC"})
    assert not made(pre_tokenizer=gpt2 | {"add_prefix_space": True})
    assert not made(pre_tokenizer=gpt2, dummy_prefix=True, first_pre_tokenizer=gpt2)
    other = {"type": "Split", "pattern": {"Regex": r"\w+(?=x)|."}, "behavior": "Isolated",
             "invert": False}
    assert not provably_cuttable({"type": "Sequence", "pretokenizers": [other, CONFIGS["none"]]})
    assert not provably_cuttable({"type": "Sequence", "pretokenizers": [other, gpt2]})
    assert not provably_cuttable({"type": "Whitespace"})
