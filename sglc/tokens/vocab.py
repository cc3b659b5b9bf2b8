"""The data of a byte-pair encoding, and its making into an instance of the `tokenizers` library.

Plain data, whatever file it came from; it knows no chat templates beyond their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from sglc.errors import TokenError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte: itself where printable, else 256, 257, ..."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


CHAR_OF: dict[int, str] = _byte_alphabet()
BYTE_OF: dict[str, int] = {char: byte for byte, char in CHAR_OF.items()}

# Control tokens that end a message or a text, by name, in the vocabularies of instruct models.
END_NAMES = frozenset({
    "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>",
    "<|eot|>", "<end_of_turn>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<EOT>"})

_MOST_IDS = 1 << 24
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class Vocab:
    """Tokens, merges and settings.

    `pre_tokenizer` and `normalizer` are written as in a tokenizer.json, without any dummy prefix;
    with `dummy_prefix`, `first_normalizer` and `first_pre_tokenizer` replace them for the text
    that opens a prompt.  Not `byte_level` means byte fallback: " " is written "\u2581", and bytes
    without a token "<0xAB>".  Raises TokenError (SGLC320) if the data are not of these types.
    """

    tokens: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    special: Mapping[str, int]
    added: Mapping[str, int] = field(default_factory=dict)
    unused: frozenset[int] = frozenset()
    pre_tokenizer: dict[str, Any] | None = None
    normalizer: dict[str, Any] | None = None
    dummy_prefix: bool = False
    first_pre_tokenizer: dict[str, Any] | None = None
    first_normalizer: dict[str, Any] | None = None
    byte_level: bool = True
    ignore_merges: bool = False
    fuse_unk: bool = False
    unk_token: str | None = None
    added_flags: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    bos_token: str = ""
    eos_token: str = ""
    chat_template: str | None = None
    name: str = "bpe"

    def __post_init__(self) -> None:
        for what, table in (("tokens", self.tokens), ("control tokens", self.special),
                            ("added tokens", self.added)):
            if not isinstance(table, Mapping) or set(map(type, table)) - {str} or set(
                    map(type, table.values())) - {int}:
                self._refuse(f"the {what} are no texts with ids")
            if table and not 0 <= min(table.values()) <= max(table.values()) < _MOST_IDS:
                self._refuse(f"the ids of {what} go from {min(table.values())} to "
                             f"{max(table.values())}")
        if set(map(len, self.merges)) - {2} or {type(p) for m in self.merges for p in m} - {str}:
            self._refuse("the merges are no pairs of tokens")
        for what, text in (("BOS", self.bos_token), ("EOS", self.eos_token),
                           ("unknown token", self.unk_token), ("chat template",
                                                               self.chat_template)):
            if text is not None and not isinstance(text, str):
                self._refuse(f"its {what} is no text")
        size = self.size
        for i in (*self.eos_ids, *(() if self.bos_id is None else (self.bos_id,))):
            if type(i) is not int or not 0 <= i < size:
                self._refuse(f"{i!r} is said to begin or end texts, and is no token")

    def _refuse(self, why: str) -> NoReturn:
        raise TokenError("SGLC320", f"the vocabulary of {self.name} is not usable", why=why)

    @property
    def size(self) -> int:
        """Number of ids: one more than the largest."""
        tables = (self.tokens, self.special, self.added)
        return 1 + max((i for table in tables for i in table.values()), default=-1)

    def bytes_of(self, token: str) -> bytes:
        """The bytes an ordinary token stands for."""
        if self.byte_level:
            if all(char in BYTE_OF for char in token):
                return bytes([BYTE_OF[char] for char in token])
            return token.encode()
        match = _BYTE_TOKEN.fullmatch(token)
        if match is not None:
            return bytes((int(match.group(1), 16),))
        return token.replace("\u2581", " ").encode()

    def build(self, *, first: bool = False, added: bool = False) -> Library:
        """An instance of the library: `first` with the dummy prefix, if there is one; `added`
        with control and added tokens, which it then finds in text.  Without, it has none."""
        from tokenizers import AddedToken, Tokenizer, models

        tokens = dict(self.tokens)
        names = {**self.added, **self.special}
        if added:
            tokens |= names
        else:
            merged = {left + right for left, right in self.merges} if names else set()
            for name in names.keys() - merged:
                tokens.pop(name, None)
        unk = self.unk_token if self.unk_token in tokens else None
        first = first and self.dummy_prefix
        shell: dict[str, Any] = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "post_processor": None, "decoder": None,
            "normalizer": self.first_normalizer if first else self.normalizer,
            "pre_tokenizer": self.first_pre_tokenizer if first else self.pre_tokenizer,
            "model": {"type": "BPE", "vocab": {}, "merges": []}}
        try:
            library = Tokenizer.from_str(json.dumps(shell))
            library.model = models.BPE(
                vocab=tokens, merges=list(self.merges), unk_token=unk, fuse_unk=self.fuse_unk,
                byte_fallback=not self.byte_level, ignore_merges=self.ignore_merges)
        except Exception as error:  # the library raises no narrower class
            raise TokenError("SGLC320", f"the vocabulary of {self.name} is not usable",
                             why=str(error)) from error
        if added:
            for table, special in ((self.added, False), (self.special, True)):
                library.add_tokens([
                    AddedToken(name, normalized=False, special=special,
                               **self.added_flags.get(name, {}))
                    for name in sorted(table, key=table.__getitem__)])
        return library
