"""What the rest of sglc needs of a tokenizer, as one small base class.

A tokenizer here maps *plain* text to ids: text never turns into control tokens, whatever it
looks like.  Control (special) tokens exist only by id, and have no text of their own.
It does not know prompts (see `prompt.py`) or chat templates (see `templates.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from sglc.tokens.images import ImagePlaces


@dataclass(frozen=True, slots=True)
class Encoded:
    """Text encoded ahead of time, to be added to a prompt whose open tail is `after`.

    `ids` are the tokens of `after + text` that no continuation can change (none for tokenizers
    without a stable cut); `held` is the rest of that text, to be encoded with what follows.
    """

    text: str
    ids: array
    held: str
    after: str = ""


class Tokenizer(ABC):
    """Plain text <-> token ids, plus the byte string of every token.

    Attributes set by subclasses:
        vocab_size: number of ids (control tokens included).
        bos_id: id that opens every prompt, or None if the tokenizer adds none.
        eos_ids: ids that end a generation.
        special: name -> id of every control token.
        chat_template: the tokenizer's own jinja template, or None.
        can_cut: whether `stable_cut` may cut inside a run (see there).
        images: which ids stand for images; None where the model has no vision.
    """

    vocab_size: int
    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    special: Mapping[str, int] = {}
    chat_template: str | None = None
    can_cut: bool = False
    images: ImagePlaces | None = None
    name: str = "tokenizer"

    @abstractmethod
    def encode(self, text: str, first: bool = False) -> list[int]:
        """Ids of plain text; never control tokens, never BOS.

        `first`: the text opens the prompt.  Otherwise it is a continuation, for which
        tokenizers with a dummy prefix add none.
        """

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that this token stands for; `b""` for control tokens and unused ids."""

    def stable_cut(self, text: str, ids: list[int]) -> tuple[int, int]:
        """(tokens, characters) of `text` that no appended text can change.

        `ids` must be `encode(text)`.  (0, 0) where the tokenizer promises nothing.
        """
        return 0, 0

    def sure_border(self, data: bytes) -> int:
        """A place in UTF-8 text where encoding may be restarted, whatever stands around it, near
        the end; it may be where the last character begins.  0 where none is seen quickly."""
        return 0

    @abstractmethod
    def encode_raw(self, text: str) -> list[int]:
        """Ids of a raw prompt: control tokens in the text are parsed, BOS is added if the
        tokenizer adds one.  Only for text that is not a program's (see design section 3)."""

    def decode(self, ids: Iterable[int]) -> str:
        """The tokens' bytes as UTF-8, U+FFFD where invalid; control tokens give nothing, nor do
        ids that only the model has (its vocabulary may be padded)."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        table, ids = self.byte_table, list(ids)
        try:
            return b"".join([table[i] for i in ids])
        except IndexError:
            return b"".join([table[i] for i in ids if i < len(table)])

    @cached_property
    def byte_table(self) -> list[bytes]:
        """Token id -> bytes, for all `vocab_size` ids."""
        return [self.token_bytes(i) for i in range(self.vocab_size)]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self.special.values())

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the vocabulary's bytes in id order, and of the control and EOS ids."""
        import hashlib

        h = hashlib.sha256()
        for piece in self.byte_table:
            h.update(len(piece).to_bytes(4, "little") + piece)
        h.update(repr((sorted(self.special.items()), sorted(self.eos_ids))).encode())
        return h.hexdigest()

    @cached_property
    def encode_run(self):  # type: ignore[no-untyped-def]
        """`encode_run(text, first) -> Encoded`, memoised: constants are encoded once."""

        @lru_cache(maxsize=4096)
        def run(text: str, first: bool) -> Encoded:
            if not self.can_cut:
                return Encoded(text, array("q"), text)
            ids = self.encode(text, first)
            tokens, chars = self.stable_cut(text, ids)
            return Encoded(text, array("q", ids[:tokens]), text[chars:])

        return run
