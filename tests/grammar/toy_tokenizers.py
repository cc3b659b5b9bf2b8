"""Tokenizers that are only a list of byte strings, for tests of constraints."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

from sglc.tokens.tokenizer import Tokenizer


class TableTokenizer(Tokenizer):
    """The given tokens, then control tokens; encodes greedily, longest token first."""

    def __init__(self, table: Iterable[bytes], control: Iterable[str] = ("<eos>", "<pad>"),
                 ends: Iterable[str] = ("<eos>",)) -> None:
        self.table = list(table)
        self.special = {name: len(self.table) + i for i, name in enumerate(control)}
        self.table += [b""] * len(self.special)
        self.vocab_size = len(self.table)
        self.eos_ids = frozenset(self.special[name] for name in ends)
        self.id_of = {text: i for i, text in reversed(list(enumerate(self.table))) if text}
        self.longest = max(map(len, self.table), default=1)

    def token_bytes(self, token_id: int) -> bytes:
        return self.table[token_id]

    def encode(self, text: str, first: bool = False) -> list[int]:
        data, out = text.encode(), []
        while data:
            for size in range(min(self.longest, len(data)), 0, -1):
                if data[:size] in self.id_of:
                    out.append(self.id_of[data[:size]])
                    data = data[size:]
                    break
            else:
                raise ValueError(f"no token starts {data!r}")
        return out

    def encode_raw(self, text: str) -> list[int]:
        return self.encode(text)


def byte_tokenizer() -> TableTokenizer:
    return TableTokenizer(bytes([b]) for b in range(256))


TEXT = """{"name": "Harry Potter", "house": "Gryffindor",\n    "alive": "Alive"} the order of the
phoenix and a teacher: 172.16.254.1 on 2024-02-14, someone@example.org said "déjà vu — 漢字かな";
Ünïcödé Привет мир \U0001f600 12345 67890 true false null [1, 2.5, -3e10] \t\t        ====== .,.,
"""


def merged_tokenizer(size: int, seed: int = 0, without: bytes = b"") -> TableTokenizer:
    """All single bytes but `without`, and random pieces of a text, whole characters or not."""
    rng = random.Random(seed)
    data = TEXT.encode()
    table = dict.fromkeys(bytes([b]) for b in range(256) if b not in without)
    pieces = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz_ \n\"0123456789ABCé漢", k=3))
              for _ in range(size // 2)]
    data += "".join(pieces).encode()
    while len(table) < size:
        at = rng.randrange(len(data))
        piece = data[at:at + rng.randint(2, 9)]
        if not set(piece) & set(without):
            table.setdefault(piece)
    return TableTokenizer(table)


def smollm2_or_merged() -> TableTokenizer:
    """SmolLM2's vocabulary from the GGUF that SGLC_TEST_GGUF names, else one that lacks the
    same 21 bytes."""
    path = os.environ.get("SGLC_TEST_GGUF")
    if not path:
        lacking = bytes([4, 6, 19, 20, 22, 29, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)])
        return merged_tokenizer(8000, seed=1, without=lacking)
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    normal = [int(kinds.parts[i][0]) == 1 for i in kinds.data]
    letters = _byte_letters()
    table = [bytes(letters[c] for c in bytes(tokens.parts[i]).decode()) if plain else b""
             for i, plain in zip(tokens.data, normal, strict=True)]
    return TableTokenizer(table)


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
