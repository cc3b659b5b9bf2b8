"""Tokenizers that are damaged: a tokenizer that encodes, or a TokenError, soon; nothing else."""

from __future__ import annotations

import copy
import json
import random
import time
from typing import Any

import pytest

from sglc.errors import TokenError
from sglc.tokens.bpe import BpeTokenizer
from tests.tokens.test_sentencepiece import metadata, trained
from tests.tokens.test_tokenizer_json import _byte_level, _sentence_piece
from tests.tokens.test_tokenizers import _gguf

SECONDS = 2.0
JUNK = (None, True, -1, 1 << 40, 0.5, float("nan"), "", "\ud800", "x" * 300, [], [None], {}, [[]],
        {"type": "BPE"}, [0] * 3)


def damaged(value: Any, rng: random.Random, whole: bool = True) -> Any:
    """The value with something in it replaced, removed or doubled."""
    if isinstance(value, (list, dict)) and value and (whole or rng.random() < 0.9):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        kind = rng.randrange(8)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, list):
            value.append(value[key])
        else:
            value[key] = damaged(value[key], rng, whole=False)
        return value
    return rng.choice(JUNK)


def reads_or_is_refused(read: Any, source: Any) -> bool:
    begin = time.process_time()
    try:
        tokenizer = read(source)
        ids = tokenizer.encode("the river's  12\n é <s>", first=True)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        tokenizer.decode(ids)
        tokenizer.encode_raw("a <s>")
    except TokenError as error:
        assert error.code == "SGLC320"
        return False
    finally:
        assert time.process_time() - begin < SECONDS
    return True


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("which", ["pieces", "byte-level", "json", "json with fallback"])
def test_damaged(small: BpeTokenizer, which: str, count: int) -> None:
    if which == "pieces":
        pytest.importorskip("sentencepiece")
    source: Any = {"pieces": lambda: metadata(trained(True)), "byte-level": lambda: _gguf(small),
                   "json": lambda: _byte_level(small), "json with fallback": _sentence_piece
                   }[which]()
    read = BpeTokenizer.from_gguf if "json" not in which else (
        lambda data: BpeTokenizer.from_json(json.dumps(data)))
    assert reads_or_is_refused(read, source)
    rng, good = random.Random(3), 0
    for _ in range(count):
        good += reads_or_is_refused(read, damaged(copy.deepcopy(source), rng))
    assert good < count
