"""A vocabulary from the metadata of a GGUF file.

It reads the `tokenizer.*` keys only; reading the file is the caller's.  Source of the keys: the
GGUF specification; of the meaning of `tokenizer.ggml.pre`: the models' own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglc.errors import TokenError
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
_UNKNOWN, _CONTROL, _USER, _UNUSED = 2, 3, 4, 5


def vocab_from_gguf(metadata: Mapping[str, Any]) -> Vocab:
    """The vocabulary, SGLC320 if the metadata has none of a kind that is known here."""
    get = metadata.get
    model, pre = get("tokenizer.ggml.model"), get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in _PRE:
        kind = f"tokenizer.ggml.model={model!r}, tokenizer.ggml.pre={pre!r}"
        raise TokenError(
            "SGLC320", f"the GGUF file has a tokenizer of an unknown kind ({kind})",
            why="its vocabulary is byte-level BPE only with model 'gpt2', and the way text is "
                "split is known for pre = " + ", ".join(map(repr, _PRE)),
            fixes=("give the model's own tokenizer.json instead",))
    try:
        names = list(metadata["tokenizer.ggml.tokens"])
        merges = tuple((left, right) for left, _, right in (
            merge.partition(" ") for merge in metadata["tokenizer.ggml.merges"]))
    except KeyError as missing:
        raise TokenError("SGLC320", f"the GGUF metadata lacks {missing}") from None
    types = list(get("tokenizer.ggml.token_type") or [1] * len(names))
    if len(types) != len(names) or len(set(names)) != len(names):
        raise TokenError("SGLC320", "the GGUF token list is inconsistent",
                         why=f"{len(names)} tokens, {len(set(names))} of them distinct, "
                             f"{len(types)} types")
    special = {n: i for i, n in enumerate(names) if types[i] in (_UNKNOWN, _CONTROL)}
    added = {n: i for i, n in enumerate(names) if types[i] == _USER}
    config, normalizer, ignore_merges, adds_bos = _PRE[pre]
    bos, eos = get("tokenizer.ggml.bos_token_id"), get("tokenizer.ggml.eos_token_id")
    for key, token in (("bos", bos), ("eos", eos)):
        if token is not None and not 0 <= token < len(names):
            raise TokenError("SGLC320", f"the GGUF {key}_token_id {token} is no token")
    if not get("tokenizer.ggml.add_bos_token", adds_bos):
        bos_id = None
    else:
        bos_id = bos
    ends = {i for n, i in special.items() if n in END_NAMES}
    ends.update(i for key in ("eot", "eom") if (i := get(f"tokenizer.ggml.{key}_token_id"))
                is not None)
    return Vocab(
        tokens={n: i for i, n in enumerate(names)}, merges=merges, special=special, added=added,
        unused=frozenset(i for i, t in enumerate(types) if t == _UNUSED),
        pre_tokenizer=CONFIGS[config],
        normalizer=None if normalizer is None else {"type": normalizer},
        ignore_merges=ignore_merges, bos_id=bos_id,
        eos_ids=frozenset(ends if eos is None else ends | {eos}),
        bos_token="" if bos is None else names[bos],
        eos_token="" if eos is None else names[eos],
        chat_template=get("tokenizer.chat_template"),
        name=str(get("general.name") or "gguf"))
