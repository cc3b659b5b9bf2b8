"""Byte-pair encodings, on the `tokenizers` library, from GGUF metadata or a tokenizer.json.

Plain text is encoded by an instance that knows no control token at all, so no text can turn
into one.  A second instance, built when first needed, encodes raw prompts.  This module knows
no file layout (see `vocab_gguf.py`, `vocab_json.py`) and no chat template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sglc.tokens.pretokenize import CONFIGS, CutRule, provably_cuttable
from sglc.tokens.text import scalar_text
from sglc.tokens.tokenizer import Tokenizer
from sglc.tokens.vocab import Vocab

if TYPE_CHECKING:
    from os import PathLike

    from tokenizers import Tokenizer as Library


class BpeTokenizer(Tokenizer):
    """A byte-pair encoding: byte-level (GPT-2 and its heirs) or with byte fallback (Llama 2).

    Beyond the base class:
        added: name -> id of added tokens that are no control tokens (`<think>`): they have
            text, but plain text never encodes to them; raw prompts and templates do.
        bos_token, eos_token: their names for chat templates, "" if there is none.
        missing_bytes: bytes that no token stands for; the encoding drops them (as it does in
            other implementations of the same vocabulary).
    """

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self.special = dict(vocab.special)
        self.added = dict(vocab.added)
        self.vocab_size = vocab.size
        self.bos_id = vocab.bos_id
        self.eos_ids = vocab.eos_ids
        self.bos_token, self.eos_token = vocab.bos_token, vocab.eos_token
        self.chat_template = vocab.chat_template
        self.name = vocab.name
        self._plain = vocab.build()
        self._first = vocab.build(first=True) if vocab.dummy_prefix else self._plain
        nfc = vocab.normalizer == {"type": "NFC"}
        self.can_cut = ((nfc or vocab.normalizer is None) and not vocab.dummy_prefix
                        and provably_cuttable(vocab.pre_tokenizer))
        self._rule = CutRule(self._plain.pre_tokenizer, nfc) if self.can_cut else None

    @classmethod
    def from_vocab(cls, vocab: Mapping[str, int], merges: Iterable[tuple[str, str]],
                   special: Mapping[str, int], pre_tokenizer: str | None = "gpt2", *,
                   added: Mapping[str, int] | None = None, bos_id: int | None = None,
                   eos_ids: Iterable[int] = (), chat_template: str | None = None,
                   ignore_merges: bool = False, name: str = "bpe") -> BpeTokenizer:
        """A byte-level BPE from tokens in GPT-2's byte alphabet, and merges in rank order.

        `pre_tokenizer` is a name in `pretokenize.CONFIGS`, None for no splitting at all.
        `special` and `added` tokens may also be in `vocab`.
        """
        config = CONFIGS[pre_tokenizer or "none"]
        by_id = {i: n for n, i in special.items()}
        eos = frozenset(eos_ids)
        return cls(Vocab(
            tokens=dict(vocab), merges=tuple(merges), special=dict(special),
            added=dict(added or {}), pre_tokenizer=config, bos_id=bos_id, eos_ids=eos,
            bos_token="" if bos_id is None else by_id.get(bos_id, ""),
            eos_token=by_id.get(min(eos), "") if eos else "", chat_template=chat_template,
            ignore_merges=ignore_merges, name=name))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> BpeTokenizer:
        """The tokenizer in a GGUF file's metadata (key -> Python value); SGLC320 if it is none
        that this class can be."""
        from sglc.tokens.vocab_gguf import vocab_from_gguf

        return cls(vocab_from_gguf(metadata))

    @classmethod
    def from_json(cls, source: str | PathLike[str], **overrides: Any) -> BpeTokenizer:
        """The tokenizer of a tokenizer.json: its path, the path of its folder, or its text.

        With a path, the files beside it (tokenizer_config.json, generation_config.json,
        chat_template.jinja) give the chat template and the ids that end a text.  `overrides`
        are fields of `Vocab`.  SGLC320 if it cannot be read or is of another kind.
        """
        from sglc.tokens.vocab_json import vocab_from_json

        return cls(vocab_from_json(source, overrides))

    def encode(self, text: str, first: bool = False) -> list[int]:
        library = self._first if first else self._plain
        return library.encode(scalar_text(text), add_special_tokens=False).ids

    def encode_raw(self, text: str) -> list[int]:
        ids = self._raw.encode(scalar_text(text), add_special_tokens=False).ids
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def token_bytes(self, token_id: int) -> bytes:
        token = self._token_of.get(token_id)
        if token is not None:
            return self.vocab.bytes_of(token)
        return self._added_of.get(token_id, "").encode()

    def stable_cut(self, text: str, ids: list[int]) -> tuple[int, int]:
        """By the rule proven in `pretokenize.py`; a border of tokens, pieces and characters."""
        if self._rule is None or not ids:
            return 0, 0
        border = self._rule.border(scalar_text(text))
        return len(ids) - len(self.encode(text[border:])), border

    def sure_border(self, data: bytes) -> int:
        return 0 if self._rule is None else self._rule.sure(data)

    @cached_property
    def missing_bytes(self) -> frozenset[int]:
        singles = {t for t in self.byte_table if len(t) == 1}
        return frozenset(b for b in range(256) if bytes((b,)) not in singles)

    @cached_property
    def _token_of(self) -> dict[int, str]:
        others = self.special_ids.union(self.added.values(), self.vocab.unused)
        return {i: t for t, i in self.vocab.tokens.items() if i not in others}

    @cached_property
    def _added_of(self) -> dict[int, str]:
        return {i: name for name, i in self.added.items()}

    @cached_property
    def _raw(self) -> Library:
        return self.vocab.build(first=True, added=True)
