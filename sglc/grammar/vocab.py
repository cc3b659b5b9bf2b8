"""A tokenizer's vocabulary as a trie over bytes, in numpy arrays.  Knows no constraints.

Nodes are numbered level by level, siblings by byte, so the children of a node are consecutive.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np

from sglc.tokens.tokenizer import Tokenizer


class Vocabulary:
    """The trie of the tokens that have bytes; control tokens and EOS ids are not in it.

    Attributes:
        words: int32 words in a mask, `ceil(size / 32)`.
        texts: token id -> bytes; `b""` for what no constraint allows.
        eos: the EOS ids.
        first: int32 [nodes + 1], the children of node n are `first[n] .. first[n + 1] - 1`.
        byte: int32 [nodes], the byte that leads to the node (0 for the root).
        token: int32 [nodes], the smallest token id that ends here, -1 if none does.
        twins, twin_of: tokens with the bytes of another, and that other one.
        single: bool [256], the bytes that are tokens by themselves.
        longest: bytes of the longest token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.size = tokenizer.vocab_size
        self.words = (self.size + 31) // 32
        self.eos = frozenset(i for i in tokenizer.eos_ids if 0 <= i < self.size)
        barred = self.eos | tokenizer.special_ids
        self.texts = [b"" if i in barred else text
                      for i, text in enumerate(tokenizer.byte_table)]
        self._build([(text, i) for i, text in enumerate(self.texts) if text])
        self.single = np.zeros(256, dtype=bool)
        self.single[[text[0] for text in self.texts if len(text) == 1]] = True
        self.longest = max(map(len, self.texts), default=0)

    def _build(self, tokens: list[tuple[bytes, int]]) -> None:
        tokens.sort()
        ids = np.array([i for _, i in tokens], dtype=np.int64)
        lengths = np.array([len(text) for text, _ in tokens], dtype=np.int64)
        data = np.frombuffer(b"".join(text for text, _ in tokens), dtype=np.uint8)
        offsets = np.cumsum(lengths) - lengths
        at = np.zeros(len(tokens), dtype=np.int64)  # the node of each token so far
        firsts, bytes_, node_tokens = [], [np.zeros(1, np.int64)], [np.full(1, -1, np.int64)]
        level, nodes, depth = 0, 1, 0  # first node of this level, nodes so far
        twins: list[np.ndarray] = []
        twin_of: list[np.ndarray] = []
        while len(ids):
            key = at * 256 + data[offsets + depth]
            fresh = np.ones(len(key), dtype=bool)  # sorted, so equal keys stand together
            fresh[1:] = key[1:] != key[:-1]
            kinds = key[fresh]
            children = np.bincount(kinds // 256 - level, minlength=nodes - level)
            firsts.append(nodes + np.cumsum(children) - children)
            level = nodes
            at = level + np.cumsum(fresh) - 1
            nodes += len(kinds)
            bytes_.append(kinds % 256)
            depth += 1
            ends = lengths == depth
            where, owner = np.unique(at[ends], return_index=True)
            ended = ids[ends]
            here = np.full(len(kinds), -1, dtype=np.int64)
            here[where - level] = ended[owner]
            node_tokens.append(here)
            extra = np.ones(len(ended), dtype=bool)
            extra[owner] = False
            twins.append(ended[extra])
            twin_of.append(here[at[ends][extra] - level])
            ids, lengths, offsets, at = ids[~ends], lengths[~ends], offsets[~ends], at[~ends]
        firsts.append(np.full(nodes - level + 1, nodes))
        self.first = np.concatenate(firsts).astype(np.int32)
        self.byte = np.concatenate(bytes_).astype(np.int32)
        self.token = np.concatenate(node_tokens).astype(np.int32)
        self.twins = np.concatenate([np.zeros(0, np.int64), *twins])
        self.twin_of = np.concatenate([np.zeros(0, np.int64), *twin_of])

    @cached_property
    def first_bytes(self) -> np.ndarray:
        """uint8 [size]: the first byte of each token, 0 where there is none."""
        return np.array([text[0] if text else 0 for text in self.texts], dtype=np.uint8)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that constraints know of the vocabulary."""
        h = hashlib.sha256(b"".join(self.texts))
        h.update(np.array([len(text) for text in self.texts], dtype="<u4").tobytes())
        h.update(repr(sorted(self.eos)).encode())
        return h.hexdigest()

    def pack(self, allowed: np.ndarray) -> np.ndarray:
        """A mask's int32 words for `allowed` (bool [32 * words])."""
        return np.packbits(allowed, bitorder="little").view("<i4")
