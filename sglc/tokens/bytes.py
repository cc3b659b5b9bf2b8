"""A tokenizer whose tokens are the 256 bytes, plus three control tokens.

It needs no vocabulary and no library, and every position in a text is a stable cut.  It knows
no model; tests and the hash model use it.
"""

from __future__ import annotations

from sglc.tokens.text import SpecialSplitter, utf8
from sglc.tokens.tokenizer import Tokenizer

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The ChatML layout, without a default system prompt."""

CHATML_NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""The control tokens that ChatML vocabularies start with; the first and last end a generation."""


class ByteTokenizer(Tokenizer):
    """Ids 0..255 are the bytes of the text's UTF-8; 256..258 are control tokens.  No BOS."""

    def __init__(self) -> None:
        self.special = {name: 256 + i for i, name in enumerate(CHATML_NAMES)}
        self.vocab_size = 256 + len(CHATML_NAMES)
        self.eos_ids = frozenset({self.special["<|endoftext|>"], self.special["<|im_end|>"]})
        self.chat_template = CHATML
        self.can_cut = True
        self.name = "bytes"
        self._splitter = SpecialSplitter(self.special)

    def encode(self, text: str, first: bool = False) -> list[int]:
        return list(utf8(text))

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id,)) if 0 <= token_id < 256 else b""

    def stable_cut(self, text: str, ids: list[int]) -> tuple[int, int]:
        """Everything: a byte's id depends on nothing around it."""
        return len(ids), len(text)

    def encode_raw(self, text: str) -> list[int]:
        out: list[int] = []
        for piece in self._splitter.split(text):
            if isinstance(piece, str):
                out.extend(utf8(piece))
            else:
                out.append(piece.id)
        return out
