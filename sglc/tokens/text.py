"""Text helpers that tokenizers and templates share: UTF-8, control-token names, look-alikes.

This module knows no vocabulary: names and ids are given to it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sglc.tokens.tokenizer import Tokenizer

_SURROGATES = re.compile("[\ud800-\udfff]")
_Utf8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class SpecialPiece:
    """One control token of a template: its id, and the name it has in template text."""

    id: int
    name: str


Piece = str | SpecialPiece


def scalar_text(text: str) -> str:
    """`text` with each lone surrogate, which UTF-8 cannot carry, replaced by U+FFFD.

    The map is per character, so it commutes with concatenation and keeps offsets.
    """
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of `text`; U+FFFD for a lone surrogate."""
    return scalar_text(text).encode()


def char_offsets(pieces: Iterable[bytes]) -> list[int]:
    """Where each piece begins in the text that all of them spell, in characters (U+FFFD where they
    are no UTF-8); of one that goes on with a character, where that begins."""
    out: list[int] = []
    decoder, at = _Utf8("replace"), 0
    for piece in pieces:
        begun = decoder.getstate()[0]
        out.append(at + bool(begun and piece and not _goes_on(begun, piece)))
        at += len(decoder.decode(piece))
    return out


def _goes_on(begun: bytes, piece: bytes) -> bool:
    """Whether a piece goes on with the character that is begun."""
    try:
        _Utf8().decode(begun + piece[:1])
    except UnicodeDecodeError:
        return False
    return True


class SpecialSplitter:
    """Splits text at control-token names, the longest name first where several match."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self._ids = dict(names)
        ordered = sorted((n for n in self._ids if n), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def split(self, text: str) -> list[Piece]:
        """The text in order, as plain strings (never empty) and control tokens."""
        if self._pattern is None:
            return [text] if text else []
        out: list[Piece] = []
        at = 0
        for match in self._pattern.finditer(text):
            if match.start() > at:
                out.append(text[at:match.start()])
            out.append(SpecialPiece(self._ids[match.group()], match.group()))
            at = match.end()
        if at < len(text):
            out.append(text[at:])
        return out

    def found(self, text: str) -> list[str]:
        """The distinct names that occur in `text`, in order of first occurrence."""
        if self._pattern is None:
            return []
        return list(dict.fromkeys(self._pattern.findall(text)))


def lookalikes(text: str, tokenizer: Tokenizer) -> list[str]:
    """Control-token names that occur in plain text, where they are ordinary characters.

    For the remark SGLC301; distinct, in order of first occurrence.
    """
    return SpecialSplitter(tokenizer.special).found(text)
