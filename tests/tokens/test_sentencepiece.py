"""SentencePiece vocabularies, in GGUF metadata and in their own files, against the library
sentencepiece: the same ids, and bytes that spell the text.  Some are trained here; one is as
published (Mistral 7B's, from the package mistral-common)."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sglc
from sglc.errors import TokenError
from sglc.tokens.bpe import BpeTokenizer
from tests.tokens.test_corpus_bytes import SCRIPTS, corpus

library = pytest.importorskip("sentencepiece")

USER = ["<think>", "[TOOL]"]


def trained(prefix: bool, **options: Any) -> Any:
    """A model of pieces as Llama 2's and Mistral's are made: BPE, bytes for what is unknown."""
    out = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(corpus()).splitlines()), model_writer=out,
        add_dummy_prefix=prefix, minloglevel=2, user_defined_symbols=USER, **{
            "model_type": "bpe", "vocab_size": 1500, "byte_fallback": True, "split_digits": True,
            "character_coverage": 0.995, "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, **options})
    return library.SentencePieceProcessor(model_proto=out.getvalue())


def metadata(model: Any, **more: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes of a model of pieces."""
    ids = range(model.vocab_size())
    names = [model.id_to_piece(i) for i in ids]
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.scores": [model.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": [
            2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i)
            else 4 if names[i] in USER else 1 for i in ids],
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        **{f"tokenizer.ggml.{k}": v for k, v in more.items()}}


@pytest.fixture(scope="module")
def model() -> Any:
    return trained(prefix=True)


@pytest.fixture(scope="module")
def tokenizer(model: Any) -> BpeTokenizer:
    return BpeTokenizer.from_gguf(metadata(model))


def check(tokenizer: BpeTokenizer, model: Any, text: str) -> None:
    assert list(tokenizer.encode(text, first=True)) == model.encode(text), text
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()


def test_ids_are_the_librarys(tokenizer: BpeTokenizer, model: Any) -> None:
    assert tokenizer.missing_bytes == frozenset() and tokenizer.bos_id == 1
    assert tokenizer.eos_ids == {2} and tokenizer.special == {"<unk>": 0, "<s>": 1, "</s>": 2}
    for text in ("", " ", " a", "a ", "the  river", "<s>", "</s> <unk>", "<0x41>", *SCRIPTS):
        check(tokenizer, model, text)


@given(st.text(st.one_of(st.sampled_from("the of a  \n\t.,01é日<>s/"), st.characters(
    exclude_categories=["Cs"], exclude_characters="\u2581\0")), max_size=40))
def test_ids_of_any_text(tokenizer: BpeTokenizer, model: Any, text: str) -> None:
    check(tokenizer, model, text)


def test_no_space_is_put_before_a_text_where_the_model_wants_none() -> None:
    model = trained(prefix=False)
    tokenizer = BpeTokenizer.from_gguf(
        metadata(model, add_space_prefix=False, add_bos_token=False))
    assert tokenizer.bos_id is None
    for text in ("", " a", "the river", *SCRIPTS):
        check(tokenizer, model, text)
        assert tokenizer.encode(text) == tokenizer.encode(text, first=True)


def test_control_and_added_tokens_are_of_raw_prompts(tokenizer: BpeTokenizer) -> None:
    think = tokenizer.added["<think>"]
    assert tokenizer.encode_raw("the<think></s>") == [
        1, *tokenizer.encode("the", first=True), think, 2]
    assert not {think, 1, 2} & set(tokenizer.encode("<think>the</s><s>"))
    assert tokenizer.token_bytes(think) == b"<think>" and tokenizer.token_bytes(1) == b""


@pytest.mark.parametrize("change", [
    {"scores": ...}, {"scores": [0.0]}, {"scores": "abc"}, {"tokens": ...}, {"tokens": [1, 2]},
    {"token_type": [1]}, {"eos_token_id": 10**6}, {"bos_token_id": -1}, {"bos_token_id": "<s>"}])
def test_what_is_inconsistent_is_refused(model: Any, change: dict[str, Any]) -> None:
    keys = metadata(model, **change)
    with pytest.raises(TokenError, match="SGLC320"):
        BpeTokenizer.from_gguf({k: v for k, v in keys.items() if v is not ...})


def test_a_file_with_pieces_opens(model: Any, tmp_path: Path) -> None:
    """In an engine, with the ids that transformers reads from the same file."""
    transformers = pytest.importorskip("transformers")
    from tests.runtime.gguf_writing import write_gguf

    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=model.vocab_size(), hidden_size=32, intermediate_size=48,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256))
    path = write_gguf(tmp_path / "pieces.gguf", llama, metadata(model, add_space_prefix=True))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    with sglc.Engine(path, device="cpu", kv_tokens=256) as engine:
        result = engine.generate("the river", sampling={"max_new_tokens": 4, "temperature": 0})
        assert len(result.ids) == 4
        assert result.text == engine.tokenizer.decode(result.ids)
        for text in ("the river", *SCRIPTS):
            if not text.startswith(" "):  # there transformers puts no space, sentencepiece does
                assert engine.tokenizer.encode(text, first=True) == theirs.encode(
                    text, add_special_tokens=False), text


def test_the_librarys_own_file(model: Any, tmp_path: Path) -> None:
    """In a folder without a tokenizer.json, with what was added beside it."""
    size = model.vocab_size()
    (tmp_path / "tokenizer.model").write_bytes(model.serialized_model_proto())
    alone = BpeTokenizer.from_json(tmp_path)
    assert alone.bos_id == 1 and alone.eos_ids == {2}
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": size, "<x>": size + 1}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "eos_token": "</s>", "chat_template": "{{ 1 }}", "added_tokens_decoder": {
            "2": {"content": "</s>", "special": True},
            str(size): {"content": "<image>", "special": True}}}))
    tokenizer = BpeTokenizer.from_json(tmp_path)
    for text in ("", " a", "the river", *SCRIPTS):
        check(tokenizer, model, text)
    assert tokenizer.bos_id == 1 and tokenizer.eos_ids == {2}
    assert (tokenizer.bos_token, tokenizer.chat_template) == ("<s>", "{{ 1 }}")
    assert tokenizer.special["<image>"] == size and tokenizer.added["<x>"] == size + 1
    assert tokenizer.vocab_size == size + 2
    assert tokenizer.encode_raw("<image><x>") == [1, size, size + 1]


@pytest.mark.parametrize("options", [
    {"model_type": "unigram"}, {"byte_fallback": False}, {"remove_extra_whitespaces": True},
    {"normalization_rule_name": "nmt_nfkc"}])
def test_other_kinds_of_pieces_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "tokenizer.model").write_bytes(
        trained(prefix=True, **options).serialized_model_proto())
    with pytest.raises(TokenError, match=r"SGLC320 tokenizer\.model is not a usable"):
        BpeTokenizer.from_json(tmp_path)


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_files(model: Any, tmp_path: Path, count: int) -> None:
    data, file, rng = model.serialized_model_proto(), tmp_path / "tokenizer.model", Random(5)
    refused = 0
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 4))):
            at = rng.randrange(len(changed))
            changed[at:at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        if rng.random() < 0.2:
            del changed[rng.randrange(len(changed)):]
        file.write_bytes(changed)
        try:
            BpeTokenizer.from_json(file).encode("the river")
        except TokenError as error:
            assert error.code == "SGLC320"
            refused += 1
    assert refused > count // 10


@pytest.mark.slow
def test_ids_and_bytes_of_a_published_vocabulary(tmp_path: Path) -> None:
    package = importlib.util.find_spec("mistral_common")
    if package is None or package.origin is None:
        pytest.skip("the package mistral-common brings the vocabulary")
    file = Path(package.origin).parent / "data" / "tokenizer.model.v1"
    model = library.SentencePieceProcessor(model_file=str(file))
    tokenizer = BpeTokenizer.from_gguf(metadata(model))
    (tmp_path / "tokenizer.model").write_bytes(file.read_bytes())
    assert BpeTokenizer.from_json(tmp_path).vocab.merges == tokenizer.vocab.merges
    lines = 0
    for text in corpus():
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()
        for line in text.splitlines():
            if line and "\u2581" not in line:
                lines += 1
                assert list(tokenizer.encode(line, first=True)) == model.encode(line), line
    assert lines > 1500
