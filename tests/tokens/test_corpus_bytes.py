"""decode(encode(text)) is the text, byte by byte, over the files of this repository and texts of
many scripts: what constraints read as a token's bytes is what it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "Съешь же ещё этих мягких французских булок, да выпей чаю.", "いろはにほへと ちりぬるを",
    "视野无限广，窗外有蓝天。", "نص حكيم له سر قاطع وذو شأن عظيم", "ऋषियों को सताने वाले दुष्ट",
    "다람쥐 헌 쳇바퀴에 타고파", "Zażółć gęślą jaźń", "ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 e\u0301 \u200b\ufeff\u00a0", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎",
    "\t\tif x:\r\n\r\n  y = 'a'\n" * 3,
    "12345678901234567890 3.14e-10 0xDEADBEEF", " " * 70, "\n" * 40, "a" * 300,
    "".join(map(chr, range(32, 0x250))))


def corpus() -> Iterator[str]:
    yield from SCRIPTS
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("examples/*.py"),
                        *ROOT.glob("sglc/tokens/*.py")]):
        yield path.read_text(encoding="utf-8")


@pytest.mark.parametrize("which", ["byte_tokenizer", "small", "split_bpe", "smollm2"])
def test_tokens_spell_the_corpus(request: pytest.FixtureRequest, which: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    missing = tokenizer.missing_bytes if isinstance(tokenizer, BpeTokenizer) else frozenset()
    table, size = tokenizer.byte_table, 0
    for text in corpus():
        data = text.encode()
        assert not missing.intersection(data)
        ids = tokenizer.encode(text)
        assert b"".join([table[i] for i in ids]) == data
        assert tokenizer.decode(ids) == text
        size += len(data)
    assert size > 80_000
