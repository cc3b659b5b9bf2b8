from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.errors import TokenError
from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.small import small_bpe
from sglc.tokens.text import char_offsets, lookalikes
from sglc.tokens.tokenizer import Tokenizer
from sglc.tokens.vocab import BYTE_OF, CHAR_OF

ALL = ("byte_tokenizer", "small", "split_bpe")
TEXT = st.text(st.one_of(st.characters(), st.sampled_from(" \n'aetr.é日😀<|im_end|>\ud83d")))


@pytest.mark.parametrize("which", ALL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_plain_text_survives_and_never_becomes_control(
        request: pytest.FixtureRequest, which: str, data: st.DataObject) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    text = data.draw(TEXT) + data.draw(st.sampled_from(["", "<|im_end|>", "<|endoftext|> a"]))
    ids = tokenizer.encode(text)
    shown = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    assert tokenizer.decode(ids) == shown
    assert not tokenizer.special_ids.intersection(ids)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("which", ALL)
def test_every_byte_has_a_token_and_control_tokens_have_none(
        request: pytest.FixtureRequest, which: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    assert {t for t in tokenizer.byte_table if len(t) == 1} == {bytes((b,)) for b in range(256)}
    for token in tokenizer.special.values():
        assert tokenizer.token_bytes(token) == b""
    assert tokenizer.eos_ids <= tokenizer.special_ids
    assert len(tokenizer.byte_table) == tokenizer.vocab_size


@pytest.mark.parametrize("which", ALL)
def test_raw_prompts_parse_control_tokens_and_get_bos(
        request: pytest.FixtureRequest, which: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    start, end = tokenizer.special["<|im_start|>"], tokenizer.special["<|im_end|>"]
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    assert tokenizer.encode_raw("<|im_start|>user\nhi <|im_end|>\n<|im_") == [
        *bos, start, *tokenizer.encode("user\nhi "), end, *tokenizer.encode("\n<|im_")]
    assert tokenizer.encode_raw("") == bos


def test_lookalikes(byte_tokenizer: ByteTokenizer) -> None:
    text = "a <|im_end|> b <|im_start|> c <|im_end|> <|im_"
    assert lookalikes(text, byte_tokenizer) == ["<|im_end|>", "<|im_start|>"]
    assert lookalikes("plain", byte_tokenizer) == []


def test_ids_that_only_the_model_has_spell_nothing(byte_tokenizer: ByteTokenizer) -> None:
    assert byte_tokenizer.decode([97, byte_tokenizer.vocab_size, 98, 1 << 20]) == "ab"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=3), st.sampled_from(
    [b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"a", "\ufffd".encode(), b""]))))
def test_offsets_are_of_characters(pieces: list[bytes]) -> None:
    """Against the text that is decoded up to each place, as a whole."""
    data = b"".join(pieces)
    begins = [i for i in range(len(data)) if _chars(data[:i]) + 1 == _chars(data[:i + 1])
              and data[:i].decode("utf-8", "replace") + data[i:].decode("utf-8", "replace")
              == data.decode("utf-8", "replace")]
    at = 0
    for piece, offset in zip(pieces, char_offsets(pieces), strict=True):
        if piece and at in begins:
            assert offset == _chars(data[:at])
        elif piece:  # within a character
            assert offset == _chars(data[:at]) - 1
        at += len(piece)


def _chars(data: bytes) -> int:
    return len(data.decode("utf-8", "replace"))


def test_byte_alphabet_is_gpt2s() -> None:
    assert len(BYTE_OF) == 256 and all(BYTE_OF[CHAR_OF[b]] == b for b in range(256))
    assert (CHAR_OF[32], CHAR_OF[10], CHAR_OF[0], CHAR_OF[0xAD]) == ("Ġ", "Ċ", "Ā", "Ń")


def test_small_bpe_merges_across_spaces_and_newlines(small: BpeTokenizer) -> None:
    assert 600 <= small.vocab_size <= 1000 and not small.can_cut
    assert any(b" " in t[1:-1] for t in small.byte_table)
    assert any(b"\n" in t[:-1] and len(t.strip()) for t in small.byte_table)
    # appended text changes ids far back
    assert small.encode("of the ") != small.encode("of the mill")[:len(small.encode("of the "))]
    assert small_bpe().fingerprint == small.fingerprint


def test_small_bpe_uses_every_token(small: BpeTokenizer) -> None:
    ordinary = [t for t in small.byte_table if t]
    assert len(set(ordinary)) == len(ordinary) == small.vocab_size - len(small.special)


def _gguf(small: BpeTokenizer, **more: object) -> dict[str, object]:
    names = sorted(small.vocab.tokens, key=small.vocab.tokens.__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*names, "<think>", "[unused]"],
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(names) - 3) + [4, 5],
        "tokenizer.ggml.merges": [" ".join(m) for m in small.vocab.merges],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, **more}


def test_gguf_metadata(small: BpeTokenizer, split_bpe: BpeTokenizer) -> None:
    tokenizer = BpeTokenizer.from_gguf(_gguf(small))
    text = "It's the river: 12 x  34\n\n the end <think>"
    assert tokenizer.encode(text) == split_bpe.encode(text)
    assert tokenizer.bos_id is None and tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.eos_ids == {0, 2} and tokenizer.can_cut
    think = tokenizer.added["<think>"]
    assert tokenizer.token_bytes(think) == b"<think>" and think not in tokenizer.encode("<think>")
    assert tokenizer.encode_raw("<think>") == [think]
    assert tokenizer.token_bytes(think + 1) == b"" and tokenizer.vocab_size == think + 2
    assert BpeTokenizer.from_gguf(
        _gguf(small, **{"tokenizer.ggml.add_bos_token": True})).bos_id == 1


@pytest.mark.parametrize("change", [
    {"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.pre": "unheard-of"},
    {"tokenizer.ggml.token_type": [1]}, {"tokenizer.ggml.eos_token_id": 10**6},
    {"tokenizer.ggml.merges": ["no such"]}])
def test_gguf_metadata_of_another_kind_is_refused(
        small: BpeTokenizer, change: dict[str, object]) -> None:
    with pytest.raises(TokenError, match="SGLC320"):
        BpeTokenizer.from_gguf(_gguf(small, **change))


CORPUS = (
    "The quick brown fox doesn't jump over the lazy dog. I'LL we're don'r 've\n\n",
    "def f(x):\n    return {'a': x ** 2, \"b\": [1, 23, 456]}\t# comment\r\n\r\n",
    "Größe, naïve café; 日本語のテキスト。 한국어 مرحبا हिन्दी 😀👨‍👩‍👧 e\u0301 \u00a0\u2003x",
    " leading", "trailing   ", "", "\n", "<|im_end|> <|im_start|>user", "a_b-c/d\\e", "x1y2",
)


def test_smollm2(smollm2: BpeTokenizer) -> None:
    assert smollm2.eos_ids == {0, 2} and smollm2.bos_id is None and smollm2.can_cut
    assert smollm2.vocab_size == 49152
    for text in CORPUS:
        assert smollm2.decode(smollm2.encode(text)) == text
    assert 4 in smollm2.missing_bytes and smollm2.decode(smollm2.encode("a\x04b")) == "ab"


@pytest.mark.slow
def test_smollm2_ids_are_those_of_transformers(smollm2: BpeTokenizer, smollm2_file) -> None:
    """transformers does not split digits off when it reads this GGUF file, unlike the model's
    own tokenizer.json; it shows in white space before digits only, and is put right here."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import pre_tokenizers

    theirs = transformers.AutoTokenizer.from_pretrained(
        str(smollm2_file.parent), gguf_file=smollm2_file.name)
    for text in CORPUS:
        plain = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert smollm2.encode(text) == plain
        assert smollm2.encode_raw(text) == theirs.encode(text)
    backend = theirs.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer])
    for text in (*CORPUS, "a  1", "x =   12\n\n 3", "1  \n2", "½ ² x1y2"):
        assert smollm2.encode_raw(text) == theirs.encode(text)
