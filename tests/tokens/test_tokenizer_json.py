from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglc.errors import TokenError
from sglc.tokens.bpe import BpeTokenizer

TEXTS = ["the river's  12 x\n\n é日😀", " a", "", "<s>hi", "\x04\x80"]


def _byte_level(small: BpeTokenizer) -> dict:
    """A tokenizer.json in the manner of Llama 3's, with a BOS from its post-processor."""
    vocab, size = dict(small.vocab.tokens), small.vocab_size
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [
            {"id": i, "content": n, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": special}
            for i, n, special in [(0, "<|endoftext|>", True), (1, "<|im_start|>", True),
                                  (2, "<|im_end|>", True), (size, "<think>", False)]],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {
                "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "ignore_merges": False,
                  "merges": [" ".join(m) for m in small.vocab.merges]}}


def _sentence_piece() -> dict:
    """A tokenizer.json in the manner of Llama 2's: dummy prefix and byte fallback."""
    words = ["\u2581", "t", "h", "e", "a", "\u2581t", "he", "\u2581the", "s", "\u2581a"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{b:02X}>": 3 + b for b in range(256)}
    vocab |= {w: len(vocab) + i for i, w in enumerate(words)}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": n, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for n, i in list(vocab.items())[:3]],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": None,
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "vocab": vocab, "merges": ["\u2581 t", "h e", "\u2581t he", "\u2581 a"]}}


@pytest.mark.parametrize("make", [_byte_level, lambda small: _sentence_piece()])
def test_ids_are_the_librarys(small: BpeTokenizer, make) -> None:
    from tokenizers import Tokenizer

    text = json.dumps(make(small))
    ours, theirs = BpeTokenizer.from_json(text), Tokenizer.from_str(text)
    for sample in [*TEXTS, "<|im_start|>user the", "the a</s>the"]:
        assert ours.encode_raw(sample) == theirs.encode(sample).ids
        if "<" not in sample:
            assert ours.encode(sample, first=True) == theirs.encode(
                sample, add_special_tokens=False).ids
        assert not ours.special_ids.intersection(ours.encode(sample))


def test_byte_level(small: BpeTokenizer) -> None:
    ours = BpeTokenizer.from_json(json.dumps(_byte_level(small)))
    assert ours.can_cut and ours.bos_id == 0 and ours.bos_token == "<|endoftext|>"
    assert ours.eos_ids == {0, 2} and set(ours.special) == set(small.special)
    assert ours.added == {"<think>": small.vocab_size}
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == text


def test_dummy_prefix_only_where_the_prompt_opens() -> None:
    ours = BpeTokenizer.from_json(json.dumps(_sentence_piece()))
    assert not ours.can_cut and ours.bos_id == 1
    assert [ours.token_bytes(i) for i in ours.encode("the a", first=True)] == [b" the", b" a"]
    assert [ours.token_bytes(i) for i in ours.encode("the a")] == [b"t", b"he", b" a"]
    assert ours.decode(ours.encode("the é\n")) == "the é\n"


def test_files_beside_it(small: BpeTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(_byte_level(small)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False, "eos_token": {"content": "<|im_end|>"}, "chat_template": "old",
        "bos_token": "<|im_start|>"}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1]}))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        ours = BpeTokenizer.from_json(path)
        assert ours.bos_id is None and ours.eos_ids == {0, 1, 2}
        assert ours.chat_template == "{{ messages }}" and ours.bos_token == "<|im_start|>"


@pytest.mark.parametrize("change", [
    {"model": {"type": "Unigram", "vocab": []}}, {"model": {"type": "WordPiece", "vocab": {}}},
    {"model": {}}, {"model": None}, {"pre_tokenizer": {"type": "Whitespace"}},
    {"pre_tokenizer": {"type": "ByteLevel"}}, {"added_tokens": [{}]}, {"normalizer": {"a": 1}}])
def test_what_is_not_supported_is_refused(small: BpeTokenizer, change: dict) -> None:
    with pytest.raises(TokenError, match="SGLC320"):
        BpeTokenizer.from_json(json.dumps(_byte_level(small) | change))


@pytest.mark.parametrize("source", ["no/such/file.json", "{", "{}", "{\"model\": [1]}"])
def test_what_is_no_tokenizer_json_is_refused(source: str) -> None:
    with pytest.raises(TokenError, match="SGLC320"):
        BpeTokenizer.from_json(source)
