"""Tokenizers for the tests: three that need no files, and SmolLM2's where its GGUF file is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.bytes import CHATML, ByteTokenizer
from sglc.tokens.small import small_bpe


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The default model's file, found on this machine or fetched."""
    from sglc.runtime.weights.fetch import fetch_default_model

    return fetch_default_model()


@pytest.fixture(scope="session")
def smollm2(smollm2_file: Path) -> BpeTokenizer:
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(str(smollm2_file)).fields
    return BpeTokenizer.from_gguf(
        {k: f.contents() for k, f in fields.items() if k.startswith("tokenizer.")})


@pytest.fixture(scope="session")
def byte_tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def small() -> BpeTokenizer:
    return small_bpe()


@pytest.fixture(scope="session")
def split_bpe(small: BpeTokenizer) -> BpeTokenizer:
    """The small vocabulary behind SmolLM's pre-tokenizer, with a BOS."""
    v = small.vocab
    return BpeTokenizer.from_vocab(
        v.tokens, v.merges, v.special, "smollm", bos_id=v.special["<|endoftext|>"],
        eos_ids=[v.special["<|im_end|>"]], chat_template=CHATML)
