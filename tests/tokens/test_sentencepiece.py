"""A SentencePiece vocabulary as published (Mistral 7B's, from the package mistral-common), against
the library sentencepiece: the same ids, and bytes that spell the text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.vocab import Vocab
from tests.tokens.test_corpus_bytes import corpus

SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
PREFIXED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, SPACES]}


def from_library(model: Any) -> BpeTokenizer:
    """The vocabulary as `tokenizer.json` files of such models have it: a merge for each way to
    put a piece together, the better piece first."""
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges: list[tuple[float, int, int, int, str, str]] = []
    for i, piece in enumerate(pieces):
        if model.is_control(i) or model.is_unknown(i) or model.is_byte(i):
            continue
        for k in range(1, len(piece)):
            left, right = piece[:k], piece[k:]
            if left in ids and right in ids:
                merges.append((-model.get_score(i), i, ids[left], ids[right], left, right))
    return BpeTokenizer(Vocab(
        tokens=ids, merges=tuple((a, b) for *_, a, b in sorted(merges)),
        special={"<unk>": 0, "<s>": 1, "</s>": 2}, normalizer=SPACES, dummy_prefix=True,
        first_normalizer=PREFIXED, byte_level=False, fuse_unk=True, unk_token="<unk>", bos_id=1,
        eos_ids=frozenset({2}), bos_token="<s>", eos_token="</s>", name="sentencepiece"))


@pytest.mark.slow
def test_ids_and_bytes_of_a_published_vocabulary() -> None:
    library = pytest.importorskip("sentencepiece")
    package = importlib.util.find_spec("mistral_common")
    if package is None or package.origin is None:
        pytest.skip("the package mistral-common brings the vocabulary")
    file = Path(package.origin).parent / "data" / "tokenizer.model.v1"
    model = library.SentencePieceProcessor(model_file=str(file))
    tokenizer = from_library(model)
    lines = 0
    for text in corpus():
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()
        for line in text.splitlines():
            if line and "\u2581" not in line:
                lines += 1
                assert list(tokenizer.encode(line, first=True)) == model.encode(line), line
    assert lines > 1500
