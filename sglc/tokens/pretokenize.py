"""Pre-tokenizers of byte-level BPEs: the known ones by name, and where text may be cut.

It builds pre-tokenizers of the `tokenizers` library and proves the cut rule below for those it
knows.  It knows no vocabulary.

The cut rule.  Let a text be split greedily from left to right by a pattern without look-behind,
each piece then being encoded by itself.  What a match at position p is depends only on the text
from p up to the last character the matcher looked at.  So (1) a piece of A is a piece of A+B,
with the same ids, if deciding it and all before it read nothing beyond the end of A, and (2) the
pieces from a border on depend only on the text from that border on: encoding restarted at a
border gives the remaining ids.  Hence if the border `c` of A satisfies (1) and `k` ids precede
it, `encode(A+B)[:k] == encode(A)[:k]` and `encode((A+B)[c:]) == encode(A+B)[k:]`.

What the matcher reads, alternative by alternative:

* Letters, digits and symbol runs (` ?\\p{L}+` and its kin): the piece and one character after
  it.  Only the last piece of A can reach the end.  `\\p{N}{1,3}` reads no more than that.
* Contractions: `'s`, `'t`, `'m`, `'d` are decided by the two characters they have; `'re`, `'ve`,
  `'ll` read two characters after the quote.  With the GPT-2 pattern, A = "...'r" is split into
  "'" and "r", and B = "e" makes it "'re": if the last piece is a lone r, v or l and the piece
  before it a lone quote, both are open.  In the patterns with `[^\\r\\n\\p{L}\\p{N}]?\\p{L}+` the
  quote and the letter are one piece, the last one.
* White space (`\\s+(?!\\S)`, `\\s+`, `\\s*[\\r\\n]+`): the whole run and one character after it.
  A run that touches the end of A is open as a whole; it is one piece with GPT-2's pattern, and
  may be several with `\\s*[\\r\\n]+` ("\\n" and "  ", until another "\\n" joins them).  A newline
  that a symbol run has taken (` ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*`) is no part of such a run; it is
  open only in the last piece.

So: drop the last piece, then further pieces that are all white space, then a lone quote before a
dropped lone r, v or l.  (Dropping the last two pieces that are no white space is also correct,
and holds back more.)  Splitting digits off first (SmolLM) cuts the text into stretches that the
pattern then sees one by one.  All stretches but the last are those of A+B, the last one of A is
a prefix of its successor, and a border between stretches is a border for good, so the argument
holds within the last stretch.

No prefix may be added, and no normalizer may run before, except NFC (Qwen).  NFC works on
stretches from one starter that composes with nothing before it (`_STARTER`, a subset) to the
next, each by itself.  So it can be left out of the argument if the window is in NFC already (its
borders then are those of the text) and the border is before such a starter: what B changes by
composing with the end of A lies behind it, and cannot change the class of the character behind
the border (a composed character has the class of its base, which a test checks for all).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": False}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _BYTES | {"use_regex": True},
    "smollm": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, _BYTES | {"use_regex": True}]},
    "llama3": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated",
         "invert": False}, _BYTES]},
    "qwen2": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated",
         "invert": False}, _BYTES]},
    "none": _BYTES,
}
"""Pre-tokenizers by name, as in a tokenizer.json; "none" splits nothing."""

# A letter or digit, then white space or a symbol that is no quote: with every proven pattern a
# border, and a stable one (the matcher has seen the character that ends the piece).
_SYNC = re.compile("[A-Za-z0-9\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff]"
                   "(?=[ \n.,;:!?(){}\\[\\]\"\u3001\u3002\uff01\uff0c\uff1f])")
# In bytes, with a sign of ASCII.  The letters that every version of Unicode in use has: Latin,
# Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, kana, ideographs, Hangul.
_LAST_SYNC = re.compile(
    rb"(?s).*(?:[A-Za-z0-9]|\xc3[\x80-\x96\x98-\xb6\xb8-\xbf]|[\xc4\xc5][\x80-\xbf]"
    rb"|\xce[\x91-\xa1\xa3-\xa9\xb1-\xbf]|\xcf[\x80-\x89]|[\xd0\xd1][\x80-\xbf]|\xd7[\x90-\xaa]"
    rb"|\xd8[\xa1-\xba]|\xd9[\x81-\x8a]|\xe0(?:\xa4[\x85-\xb9]|\xb8[\x81-\xae])"
    rb"|\xe3(?:\x81[\x81-\xbf]|\x82[\x80-\x96\xa1-\xbf]|\x83[\x80-\xba])|\xe4[\xb8-\xbf][\x80-\xbf]"
    rb"|[\xe5-\xe8\xeb\xec][\x80-\xbf]{2}|\xe9[\x80-\xbe][\x80-\xbf]|\xea[\xb0-\xbf][\x80-\xbf]"
    rb"|\xed[\x80-\x9d][\x80-\xbf])(?=[ \n.,;:!?(){}\[\]\"])")
# Characters that no canonical composition ends with: ASCII, CJK signs, kana, ideographs, and
# fullwidth forms.
_STARTER = re.compile("[\x00-\x7f\u3000-\u3029\u3030-\u3098\u309b-\u9fff\uff01-\uff9d]")


def provably_cuttable(config: dict[str, Any] | None) -> bool:
    """Whether the cut rule is proven for this pre-tokenizer (the JSON of a tokenizer.json)."""
    if config is None:
        return False
    steps = config["pretokenizers"] if config["type"] == "Sequence" else [config]
    *before, last = steps
    if last["type"] != "ByteLevel" or last.get("add_prefix_space", True):
        return False
    if last.get("use_regex", True):
        return [step["type"] for step in before] in ([], ["Digits"])
    return len(before) == 1 and any(
        before[0] == CONFIGS[name]["pretokenizers"][0] for name in ("llama3", "qwen2"))


@dataclass(frozen=True, slots=True)
class CutRule:
    """Finds the last stable border of a text under a pre-tokenizer the rule is proven for."""

    pre_tokenizer: PreTokenizer
    nfc: bool = False
    window: int = 64

    def border(self, text: str) -> int:
        """The character index of the last border that no appended text can move; 0 if none.

        Looks only at a window at the end that opens at a border, mostly < 100 characters.
        """
        return self._stable(text, self._sync(text))

    def sure(self, data: bytes) -> int:
        """The last border in UTF-8 text that is stable by itself, of those between a common letter
        or digit and a sign of ASCII; 0 if there is none.  (What NFC does to either side stays on
        its side: no character composes with ASCII signs and white space.)"""
        match = _LAST_SYNC.match(data)
        return 0 if match is None else match.end()

    def _sync(self, text: str) -> int:
        """A border that is stable by itself, not far before the end; 0 if there is none."""
        size = self.window
        while size < len(text):
            match = _SYNC.search(text, len(text) - size)
            if match is not None:
                return match.end()
            size *= 4
        return 0

    def _stable(self, text: str, start: int) -> int:
        window = text[start:]
        if self.nfc and not unicodedata.is_normalized("NFC", window):
            return start
        pieces = self.pre_tokenizer.pre_tokenize_str(window)
        spans = [(start + a, start + b) for _, (a, b) in pieces]
        if not spans:
            return start
        last = text[slice(*spans.pop())]
        while spans and _all_space(last) and _all_space(text[slice(*spans[-1])]):
            spans.pop()
        if last in ("r", "v", "l") and spans and text[slice(*spans[-1])] == "'":
            spans.pop()
        while self.nfc and spans and not _STARTER.match(text, spans[-1][1]):
            spans.pop()
        return spans[-1][1] if spans else start


def _all_space(text: str) -> bool:
    # `isspace` knows at least what `\s` matches, U+180E (of old Unicode tables) aside.
    return text.replace("\u180e", " ").isspace()
