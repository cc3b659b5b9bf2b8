"""How completions spell tokens: control tokens by their names, which a prompt's text has too.

A prompt is echoed as it was sent; one of ids as the text that has these ids.  `text_offset` says
where in that text, and in what was generated behind it, each token begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sglc.tokens.text import char_offsets, utf8


class Spelling:
    """Spells ids of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._names = {i: name for name, i in tokenizer.special.items()}

    def token(self, token_id: int) -> str:
        """A token by itself, U+FFFD where it is no UTF-8."""
        name = self._names.get(token_id)
        return self._tokenizer.decode([token_id]) if name is None else name

    def text(self, ids: Iterable[int]) -> str:
        """The text of a prompt that is given as ids."""
        return b"".join(map(self._piece, ids)).decode("utf-8", "replace")

    def offsets(self, prompt: str, ids: Sequence[int], generated: Sequence[int]) -> list[int]:
        """Where in `prompt` and the generated text behind it the tokens begin, in characters.

        ids: the prompt's.  A control token that the tokenizer added to it takes no room, nor does
        one that was generated.
        """
        return char_offsets([*self._pieces(utf8(prompt), ids),
                             *[self._tokenizer.decode_bytes([t]) for t in generated]])

    def _piece(self, token_id: int) -> bytes:
        name = self._names.get(token_id)
        return self._tokenizer.decode_bytes([token_id]) if name is None else name.encode()

    def _pieces(self, text: bytes, ids: Sequence[int]) -> list[bytes]:
        """What each of a prompt's ids is of its text."""
        out: list[bytes] = []
        at = 0
        for token_id in ids:
            piece = _there(text, at, self._piece(token_id))
            if piece is None:  # added, or changed by the tokenizer's normalizer
                piece = b"" if token_id in self._names else self._piece(token_id)
            out.append(piece)
            at += len(piece)
        return out


def _there(text: bytes, at: int, piece: bytes) -> bytes | None:
    """A token's bytes as the text has them at a place; None if it does not.  A space before a
    token may be the tokenizer's own, and spaces around a control token part of it."""
    if text.startswith(piece, at):
        return piece
    begin = at
    while text[begin:begin + 1].isspace():
        begin += 1
    if text.startswith(piece, begin):
        return text[at:begin] + piece
    return piece[1:] if piece[:1] == b" " and text.startswith(piece[1:], at) else None
