"""A vocabulary from SentencePiece's own file, tokenizer.model.

It is a protocol buffer, of which a few fields are read here; byte-pair encodings only.  Format:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from sglc.errors import TokenError
from sglc.tokens.pieces import FIRST_NORMALIZER, NORMALIZER, merges_of

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED = 1, 2, 3, 4, 5
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_BPE = 2
_MOST_PIECES = 1 << 24


def fields_of_model(path: Path) -> dict[str, Any]:
    """The fields of `Vocab` that a tokenizer.model gives, with the id of BOS as `bos_id`.

    Raises TokenError (SGLC320) if the file is damaged or of another kind.
    """
    try:
        return _fields(path, path.read_bytes())
    except OSError as error:
        raise TokenError("SGLC320", f"{path.name} cannot be read", why=str(error)) from error
    except TokenError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        _refuse(path, f"it is damaged: {type(error).__name__}: {error}")


def _fields(path: Path, data: bytes) -> dict[str, Any]:
    names: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _message(data):
        if number == _PIECES:
            piece = dict(_message(value))
            names.append(piece[1].decode())
            scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
            kinds.append(piece.get(3, _NORMAL))
        elif number == _TRAINER:
            trainer = dict(_message(value))
        elif number == _NORMALIZER:
            normalizer = dict(_message(value))
    if not names or len(names) > _MOST_PIECES or len(set(names)) != len(names) or any(
            map(math.isnan, scores)):
        _refuse(path, f"it has {len(names)} pieces, {len(set(names))} of them distinct")
    if trainer.get(3, 1) != _BPE:
        _refuse(path, "it is no byte-pair encoding")
    if not trainer.get(35, 0):
        _refuse(path, "it has no pieces for bytes (byte_fallback)")
    if normalizer.get(2) or normalizer.get(4, 1) or trainer.get(24, 0):
        _refuse(path, "it changes texts before they are encoded (characters, or spaces that "
                      "follow each other)")
    made = [i for i, kind in enumerate(kinds) if kind in (_NORMAL, _USER)]
    special = {n: i for i, n in enumerate(names) if kinds[i] in (_UNKNOWN, _CONTROL)}
    eos = trainer.get(47, b"</s>").decode()
    return {
        "tokens": {n: i for i, n in enumerate(names)}, "special": special,
        "added": {n: i for i, n in enumerate(names) if kinds[i] == _USER},
        "unused": frozenset(i for i, kind in enumerate(kinds) if kind == _UNUSED),
        "merges": merges_of(names, scores, made), "normalizer": NORMALIZER,
        "dummy_prefix": bool(normalizer.get(3, 1)), "first_normalizer": FIRST_NORMALIZER,
        "byte_level": False, "fuse_unk": True,
        "unk_token": next((n for n, i in special.items() if kinds[i] == _UNKNOWN), None),
        "bos_id": special.get(trainer.get(46, b"<s>").decode()),
        "eos_token": eos if eos in special else ""}


def _message(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers, and bytes for whatever else; a repeated one comes again."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _number(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError(f"a field of kind {kind}")
            size, at = _number(data, at)
        if size > len(data) - at:
            raise ValueError("a field goes beyond the end")
        yield key >> 3, data[at:at + size]
        at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length number at a place, and what follows it."""
    out = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        out |= (byte & 127) << shift
        if byte < 128:
            return out, at
        shift += 7
    raise ValueError("a number without an end")


def _refuse(path: Path, why: str) -> NoReturn:
    raise TokenError("SGLC320", f"{path.name} is not a usable SentencePiece model", why=why,
                     fixes=("put the model's tokenizer.json beside it",))
