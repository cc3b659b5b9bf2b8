"""Stop strings, stop patterns and streamed text: what the tokens of one generation spell so far.

Rules.  After each token the text so far is looked at.  A stop string matches wherever its
characters appear, across token borders (U+FFFD that stands for invalid bytes matches none).  A
stop pattern matches as `re.search` does, empty matches apart.  Of several matches the one that
starts first wins, of those the longest.  Trimming keeps the tokens wholly before the match, less
any whose last character the next token completes; text between them and the match is left over.
Without trimming, all tokens up to the one that completed the match are kept.

Streamed text is final: it is held back while it may be the beginning of a stop string or an
incomplete character, and until the end if there are stop patterns that trim.

This module knows no tokenizer beyond its table of bytes, and nothing of sampling.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_Utf8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop was found: keep this many tokens, this text after them, and what matched."""

    kept: int
    leftover: str
    matched: str


class StopWatcher:
    """Reads one generation token by token.

    table: token id -> bytes.  stops, patterns: stop strings and regular expressions.  trim:
    whether the matched text is cut off.  skip: bytes at the beginning that are not looked at.
    Raises `re.error` for an invalid pattern.
    """

    def __init__(self, table: Sequence[bytes], stops: Sequence[str] = (),
                 patterns: Sequence[str] = (), *, trim: bool = True,
                 skip: int = 0) -> None:
        self._skip = skip
        self._table = table
        self._stops: list[bytes] = []
        for stop in stops:
            try:
                encoded = stop.encode()
            except UnicodeEncodeError:  # lone surrogates: no text contains them
                continue
            if encoded:
                self._stops.append(encoded)
        self._reach = max(map(len, self._stops), default=1) - 1
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._trim = trim
        self._data = bytearray()
        self._ends: list[int] = []
        self._decoder = _Utf8("replace") if self._patterns else None
        self._text = ""  # decoded so far; kept for patterns only
        self._stream_decoder = _Utf8("replace")
        self._sent_bytes = skip
        self._sent_chars = 0

    def push(self, token: int) -> StopMatch | None:
        """Add a token; the match that ends the generation, if there is one now."""
        piece = self._table[token]
        data = self._data
        seen = len(data)
        data += piece
        self._ends.append(len(data))
        if not piece:
            return None
        best: tuple[int, int, str] | None = None  # start byte, -length, matched text
        if self._stops:
            low = max(self._skip, seen - self._reach)
            for stop in self._stops:
                at = data.find(stop, low)
                if at >= 0 and (best is None or (at, -len(stop)) < best[:2]):
                    best = (at, -len(stop), stop.decode())
        if self._decoder is not None:
            self._text += self._decoder.decode(piece[max(0, self._skip - seen):])
            for pattern in self._patterns:
                for match in pattern.finditer(self._text):
                    if match.end() > match.start():
                        start = self._offset(match.start())
                        size = self._offset(match.end()) - start
                        if best is None or (start, -size) < best[:2]:
                            best = (start, -size, match.group())
                        break
        if best is None:
            return None
        if not self._trim:
            return StopMatch(len(self._ends), "", best[2])
        return StopMatch(*self._cut(best[0]), best[2])

    def ready(self) -> str:
        """New text that no later token can change or trim."""
        data = self._data
        safe = len(data)
        if self._trim:
            if self._patterns:
                return ""
            safe -= self._held(safe - self._skip)
        if safe <= self._sent_bytes:
            return ""
        text = self._stream_decoder.decode(bytes(data[self._sent_bytes:safe]))
        self._sent_bytes = safe
        self._sent_chars += len(text)
        return text

    def _held(self, most: int) -> int:
        """How many of the last bytes, up to `most`, may be the beginning of a stop string."""
        held, data = 0, self._data
        if most <= 0:
            return 0
        for stop in self._stops:
            n = min(len(stop) - 1, most)
            while n > held:  # only those that end alike: all took 0.3 ms a token for long stops
                n = stop.rfind(data[-1], held, n) + 1
                if n > held and data.endswith(stop[:n]):
                    held = n
                n -= 1
        return held

    def rest(self, text: str) -> str:
        """What of the generation's final text has not been streamed."""
        return text[self._sent_chars:]

    def _offset(self, chars: int) -> int:
        """Where a character of the text that is looked at begins, in bytes of all data."""
        return self._skip + byte_offset(self._data[self._skip:], chars)

    def _cut(self, start: int) -> tuple[int, str]:
        """Tokens to keep so that they end at or before byte `start`, and the text between."""
        data, ends = self._data, self._ends
        kept = bisect_right(ends, start)
        while kept and not _clean_border(data, ends[kept - 1], start):
            kept -= 1
        end = ends[kept - 1] if kept else 0
        if end < self._skip:  # the tokens kept would not spell what is skipped
            kept, end = 0, self._skip
        return kept, data[end:start].decode("utf-8", "replace")


def _clean_border(data: bytearray, at: int, end: int) -> bool:
    """Whether decoding `data[:end]` in two parts, cut at `at`, gives the same text."""
    low = at - 1
    while low > 0 and at - low < 4 and data[low] & 0xC0 == 0x80:
        low -= 1
    if data[low] < 0x80:
        return True
    high = min(at + 3, end)
    parts = data[low:at].decode("utf-8", "replace") + data[at:high].decode("utf-8", "replace")
    return parts == data[low:high].decode("utf-8", "replace")


def byte_offset(data: bytes | bytearray, chars: int) -> int:
    """Where the character number `chars` of the decoded data begins, in bytes."""
    at = 0
    while True:
        try:
            text = data[at:].decode("utf-8")
        except UnicodeDecodeError as error:
            valid = data[at:at + error.start].decode("utf-8")
            if chars <= len(valid):
                return at + len(valid[:chars].encode())
            chars -= len(valid) + 1  # and one U+FFFD for the invalid bytes
            at += error.end
        else:
            return at + len(text[:chars].encode())
