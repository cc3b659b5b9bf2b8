"""Walks the vocabulary's trie against an automaton: which tokens a decoding state allows.

Level by level over the trie, in numpy where a level is wide and in plain Python where it is
narrow.  Knows nothing of liveness beyond the automaton's own states (see `liveness.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sglc.grammar.automaton import Automaton
from sglc.grammar.vocab import Vocabulary

_NARROW = 40  # children of one level, up to which plain Python is faster than numpy


@dataclass(frozen=True, slots=True)
class Front:
    """Trie nodes with the decoding state reached there, as three parallel arrays."""

    nodes: np.ndarray
    q: np.ndarray
    u: np.ndarray


class Walker:
    """`tokens(front)`: the tokens below some trie nodes that the automaton allows."""

    def __init__(self, automaton: Automaton, vocab: Vocabulary) -> None:
        front = automaton.front
        self.vocab = vocab
        self.table = front.table
        self.step = automaton.step.ravel()
        self.codes = front.codes
        self.atoms = front.atoms
        self.flat = front.nodes == 1  # only one-byte characters: no inner nodes
        # The same arrays for scalar reads: a memoryview gives a Python int, and fast.
        self.table_view = self.table.data
        self.step_view = self.step.data
        self.first_view = vocab.first.data
        self.byte_view = vocab.byte.data
        self.token_view = vocab.token.data

    def root(self, q: int, u: int) -> Front:
        return Front(np.zeros(1, np.int32), np.array([q], np.int64), np.array([u], np.int64))

    def tokens(self, front: Front, found: list[np.ndarray],
               states: list[tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        """Appends ids of allowed tokens strictly below the nodes of `front` to `found`, and
        the (q, u) they lead to, to `states`.  A token with twins is given once."""
        first = self.vocab.first
        nodes, q, u = front.nodes, front.q, front.u
        while len(nodes):
            begin = first[nodes]
            counts = first[nodes + 1] - begin
            total = int(counts.sum())
            if total <= _NARROW:
                if not total:
                    return
                nodes, q, u = self._narrow(nodes, q, u, found, states)
                continue
            ends = np.cumsum(counts)
            children = np.repeat(begin - (ends - counts), counts) + np.arange(total)
            owner = np.repeat(np.arange(len(nodes)), counts)
            nodes, q, u = self.enter(children, q[owner], u[owner], found, states)

    def enter(self, nodes: np.ndarray, q: np.ndarray, u: np.ndarray, found: list[np.ndarray],
              states: list[tuple[np.ndarray, np.ndarray]] | None,
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads the byte of each node in state (q, u); what survives, its tokens noted."""
        byte = self.vocab.byte[nodes]
        code = self.table[byte if self.flat else (u << 8) + byte]
        after = self.step[q * self.codes + code]
        alive = np.flatnonzero(after >= 0)
        nodes = nodes[alive]
        q = after[alive].astype(np.int64)
        u = u[alive] if self.flat else np.maximum(code[alive] - (self.atoms - 1), 0)
        tokens = self.vocab.token[nodes]
        real = np.flatnonzero(tokens >= 0)
        found.append(tokens[real])
        if states is not None:
            states.append((q[real], u[real]))
        return nodes, q, u

    def _narrow(self, nodes: np.ndarray, q: np.ndarray, u: np.ndarray, found: list[np.ndarray],
                states: list[tuple[np.ndarray, np.ndarray]] | None,
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One level, and on while it stays narrow, without numpy."""
        first, byte, token = self.first_view, self.byte_view, self.token_view
        table, step, codes, atoms = self.table_view, self.step_view, self.codes, self.atoms
        level = list(zip(nodes.tolist(), q.tolist(), u.tolist(), strict=True))
        ids: list[int] = []
        ends: list[tuple[int, int]] = []
        width = 0
        while level and width <= _NARROW:
            width = 0
            below: list[tuple[int, int, int]] = []
            for node, state, inner in level:
                row, at = state * codes, inner << 8
                for child in range(first[node], first[node + 1]):
                    code = table[at + byte[child]]
                    after = step[row + code]
                    if after < 0:
                        continue
                    in_character = code - atoms + 1 if code >= atoms else 0
                    if token[child] >= 0:
                        ids.append(token[child])
                        ends.append((after, in_character))
                    children = first[child + 1] - first[child]
                    if children:
                        width += children
                        below.append((child, after, in_character))
            level = below
        if ids:
            found.append(np.array(ids, dtype=np.int32))
            if states is not None:
                pairs = np.array(ends, dtype=np.int64)
                states.append((pairs[:, 0], pairs[:, 1]))
        if not level:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty, empty
        front = np.array(level, dtype=np.int64)
        return front[:, 0], front[:, 1], front[:, 2]
