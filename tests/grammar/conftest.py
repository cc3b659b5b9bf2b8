from __future__ import annotations

import pytest
from toy_tokenizers import TableTokenizer, byte_tokenizer, merged_tokenizer, smollm2_or_merged


@pytest.fixture(scope="session")
def bytes_only() -> TableTokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def merged() -> TableTokenizer:
    return merged_tokenizer(3000)


@pytest.fixture(scope="session")
def large() -> TableTokenizer:
    return smollm2_or_merged()
