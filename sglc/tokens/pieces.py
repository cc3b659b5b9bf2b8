"""SentencePiece's byte-pair encodings (Kudo and Richardson, 2018) as lists of merges.

SentencePiece has no merges: of all neighbours that make a piece together, it joins those whose
piece has the highest score, leftmost first.  A merge for each way to put a piece together, the
better piece first, has the same result; it is how fast tokenizers of such models are made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

SPACE = "\u2581"

NORMALIZER: dict[str, Any] = {
    "type": "Replace", "pattern": {"String": " "}, "content": SPACE}
FIRST_NORMALIZER: dict[str, Any] = {
    "type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, NORMALIZER]}
"""Of the text that opens a prompt, where a space is put before it."""


def merges_of(pieces: Sequence[str], scores: Sequence[float], made: Collection[int]
              ) -> tuple[tuple[str, str], ...]:
    """Merges, the first to be applied first.

    pieces: by id.  made: the ids that take part; control tokens and bytes do not.
    """
    ids = {pieces[i]: i for i in made}
    found: list[tuple[float, int, int, int]] = []
    for piece, i in ids.items():
        for k in range(1, len(piece)):
            left, right = ids.get(piece[:k]), ids.get(piece[k:])
            if left is not None and right is not None:
                found.append((-scores[i], i, left, right))
    return tuple([(pieces[left], pieces[right]) for *_, left, right in sorted(found)])
