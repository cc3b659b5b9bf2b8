"""A vocabulary from the metadata of a GGUF file.

It reads the `tokenizer.*` keys only; reading the file is the caller's.  Source of the keys: the
GGUF specification; of the meaning of `tokenizer.ggml.pre`: the models' own tokenizer.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sglc.errors import TokenError
from sglc.tokens.pieces import FIRST_NORMALIZER, NORMALIZER, merges_of
from sglc.tokens.pretokenize import CONFIGS
from sglc.tokens.vocab import END_NAMES, Vocab

# tokenizer.ggml.pre -> (name in CONFIGS, normalizer, ignore_merges, BOS unless told otherwise)
_PRE: dict[str, tuple[str, str | None, bool, bool]] = {
    "gpt-2": ("gpt2", None, False, False),
    "gpt2": ("gpt2", None, False, False),
    "smollm": ("smollm", None, False, False),
    "llama-bpe": ("llama3", None, True, True),
    "llama3": ("llama3", None, True, True),
    "llama-v3": ("llama3", None, True, True),
    "qwen2": ("qwen2", "NFC", False, False),
    "deepseek-r1-qwen": ("qwen2", "NFC", False, False),
}
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED = 1, 2, 3, 4, 5


def vocab_from_gguf(metadata: Mapping[str, Any]) -> Vocab:
    """The vocabulary, byte-level BPE or SentencePiece's.

    Raises TokenError (SGLC320) if the metadata has none of a kind that is known here, or is
    inconsistent.
    """
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model == "llama":
        return _Keys(metadata).sentence_pieces()
    if model == "gpt2" and isinstance(pre, str) and pre in _PRE:
        return _Keys(metadata).byte_level(*_PRE[pre])
    kind = f"tokenizer.ggml.model={model!r}, tokenizer.ggml.pre={pre!r}"
    raise TokenError(
        "SGLC320", f"the GGUF file has a tokenizer of an unknown kind ({kind})",
        why="known are SentencePiece's BPE (model 'llama') and byte-level BPE (model 'gpt2') with "
            "pre = " + ", ".join(map(repr, _PRE)),
        fixes=("give the model's own tokenizer.json instead",))


class _Keys:
    """The metadata, checked."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.names: list[str] = self._list("tokens", str)
        given = self._get("token_type")
        self.types = [_NORMAL] * len(self.names) if not given else self._list("token_type", int)
        if len(set(self.names)) != len(self.names):
            raise TokenError("SGLC320", "the GGUF token list is inconsistent",
                             why=f"{len(self.names)} tokens, {len(set(self.names))} of them "
                                 "distinct")

    def byte_level(self, config: str, normalizer: str | None, ignore_merges: bool,
                   adds_bos: bool) -> Vocab:
        merges = [m.partition(" ") for m in self._list("merges", str, whole=False)]
        return Vocab(
            merges=tuple((left, right) for left, _, right in merges),
            pre_tokenizer=CONFIGS[config],
            normalizer=None if normalizer is None else {"type": normalizer},
            ignore_merges=ignore_merges,
            **self._common(adds_bos, self._token("bos"), self._token("eos")))

    def sentence_pieces(self) -> Vocab:
        scores = self._list("scores", (int, float))
        if any(map(math.isnan, scores)):
            raise TokenError("SGLC320", "the GGUF scores are not all numbers")
        bos, eos = self._token("bos", 1), self._token("eos", 2)
        unknown = self._token("unknown", 0)
        ends = {bos, eos, unknown, *(self._token(k) for k in ("eot", "eom"))}
        made = [i for i, t in enumerate(self.types) if t in (_NORMAL, _USER) and i not in ends]
        return Vocab(
            merges=merges_of(self.names, scores, made), normalizer=NORMALIZER,
            dummy_prefix=bool(self._get("add_space_prefix", True)),
            first_normalizer=FIRST_NORMALIZER, byte_level=False, fuse_unk=True,
            unk_token=None if unknown is None else self.names[unknown],
            **self._common(True, bos, eos))

    def _common(self, adds_bos: bool, bos: int | None, eos: int | None) -> dict[str, Any]:
        """The fields of a Vocab that do not depend on the kind."""
        special = {n: i for i, n in enumerate(self.names)
                   if self.types[i] in (_UNKNOWN, _CONTROL)}
        ends = {i for n, i in special.items() if n in END_NAMES}
        ends.update(i for i in (eos, self._token("eot"), self._token("eom")) if i is not None)
        return {
            "tokens": {n: i for i, n in enumerate(self.names)}, "special": special,
            "added": {n: i for i, n in enumerate(self.names) if self.types[i] == _USER},
            "unused": frozenset(i for i, t in enumerate(self.types) if t == _UNUSED),
            "bos_id": bos if self._get("add_bos_token", adds_bos) else None,
            "eos_ids": frozenset(ends),
            "bos_token": "" if bos is None else self.names[bos],
            "eos_token": "" if eos is None else self.names[eos],
            "chat_template": self._metadata.get("tokenizer.chat_template"),
            "name": str(self._metadata.get("general.name") or "gguf")}

    def _get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}", default)

    def _list(self, key: str, kind: Any, *, whole: bool = True) -> list[Any]:
        """An array; whole: with an entry for each token."""
        if f"tokenizer.ggml.{key}" not in self._metadata:
            raise TokenError("SGLC320", f"the GGUF metadata lacks 'tokenizer.ggml.{key}'")
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(v, kind) for v in value):
            raise TokenError("SGLC320", f"tokenizer.ggml.{key} of the GGUF file is no list of "
                                        "what it should hold")
        if whole and key != "tokens" and len(value) != len(self.names):
            raise TokenError("SGLC320", "the GGUF token list is inconsistent",
                             why=f"{len(self.names)} tokens, {len(value)} in "
                                 f"tokenizer.ggml.{key}")
        return value

    def _token(self, key: str, default: int | None = None) -> int | None:
        """The id of a control token, None where there is none."""
        token = self._get(f"{key}_token_id", default)
        if token is None:
            return None
        if type(token) is not int or not 0 <= token < len(self.names):
            raise TokenError("SGLC320", f"the GGUF {key}_token_id {token!r} is no token")
        return token
