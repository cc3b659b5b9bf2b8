from __future__ import annotations

import os
from collections.abc import Iterator

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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Constraints of these tests are kept in a folder of their own, empty at first."""
    before = os.environ.get("SGLC_CACHE")
    os.environ["SGLC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SGLC_CACHE"]
    else:
        os.environ["SGLC_CACHE"] = before
