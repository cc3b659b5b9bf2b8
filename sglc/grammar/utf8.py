"""The UTF-8 front end: from bytes to atoms, shared by all states of an automaton.

A decoding state is a pair (automaton state, node): node 0 stands between characters, the others
inside of one.  The product of the two is never built.  Knows no automaton.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_BLOCK = 64  # code points under one choice of all bytes but the last


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """`table[node * 256 + byte]` is a code: an atom (< `atoms`); `atoms + node - 1` for an inner
    node; `dead` for a byte that no character of any atom has there.

    `reach[node, atom]`: whether the node leads to the atom.
    """

    table: np.ndarray  # int32
    atoms: int
    nodes: int
    reach: np.ndarray  # bool

    @property
    def dead(self) -> int:
        return self.atoms + self.nodes - 1

    @property
    def codes(self) -> int:
        return self.atoms + self.nodes

    def spellable(self, allowed: np.ndarray) -> np.ndarray:
        """`reach` when only the bytes marked in `allowed` (bool[256]) may be used."""
        if allowed.all():
            return self.reach
        if allowed[128:192].all():  # all bytes that inner nodes read: only the root can differ
            reach: np.ndarray = self.reach.copy()
            codes = self.table[:256][allowed]
            inner = codes[(codes >= self.atoms) & (codes < self.dead)]
            reach[0] = reach[inner - self.atoms + 1].any(axis=0)
            reach[0, codes[codes < self.atoms]] = True
            return reach
        table = self.table.reshape(self.nodes, 256).copy()
        table[:, ~allowed] = self.dead
        return _reach(table, self.atoms)


def front_end(intervals: Iterable[tuple[int, int, int]], atoms: int) -> FrontEnd:
    """The front end for disjoint ascending (first, last, atom) intervals of code points."""
    spans = list(intervals)
    nodes = _Nodes(atoms)
    root = np.full(256, -1, dtype=np.int32)
    for lo, hi, atom in spans:
        if lo < 128:
            root[lo:min(hi, 127) + 1] = atom
    if spans and spans[-1][1] >= 128:
        _multi_byte(spans, nodes, root)
    table = np.full((len(nodes.rows) + 1, 256), -1, dtype=np.int32)
    table[0] = root
    if nodes.rows:
        table[1:, 128:192] = nodes.rows
    table[table < 0] = atoms + len(nodes.rows)  # the dead code comes after all nodes
    return FrontEnd(np.ascontiguousarray(table.ravel()), atoms, len(table), _reach(table, atoms))


class _Nodes:
    """Inner nodes, equal ones once: the codes of the 64 continuation bytes of each.

    Children come before their parents.
    """

    def __init__(self, atoms: int) -> None:
        self.atoms = atoms
        self.rows: list[np.ndarray] = []
        self.known: dict[bytes, int] = {}

    def code(self, continuation: np.ndarray) -> int:
        """The code of the node with these 64 codes, -1 if all are."""
        key = continuation.tobytes()
        found = self.known.get(key)
        if found is None:
            found = -1
            if (continuation >= 0).any():
                found = self.atoms + len(self.rows)
                self.rows.append(continuation)
            self.known[key] = found
        return found


def _multi_byte(spans: list[tuple[int, int, int]], nodes: _Nodes, root: np.ndarray) -> None:
    """Fills in the characters of two to four bytes, level by level from the last byte."""
    end = 0x20000 if spans[-1][1] < 0x20000 else 0x110000
    atom_of = np.full(end, -1, dtype=np.int32)
    mixed: set[int] = set()
    for lo, hi, atom in spans:
        atom_of[lo:hi + 1] = atom
        if lo % _BLOCK:
            mixed.add(lo // _BLOCK)
        if (hi + 1) % _BLOCK:
            mixed.add(hi // _BLOCK)
    blocks = atom_of.reshape(-1, _BLOCK)
    # Most blocks lie in one interval: their node depends on the atom alone.
    uniform = np.full(nodes.atoms + 1, -1, dtype=np.int32)
    for atom in set(blocks[:, 0].tolist()):
        if atom >= 0:
            uniform[atom] = nodes.code(np.full(_BLOCK, atom, dtype=np.int32))
    last = uniform[blocks[:, 0]]
    for block in sorted(mixed):
        last[block] = nodes.code(blocks[block])
    root[0xC2:0xE0] = last[2:32]
    upper = last.reshape(-1, _BLOCK)
    third = np.full(0x110000 // (_BLOCK * _BLOCK), -1, dtype=np.int32)
    for i, row in enumerate(upper):
        if i == 0:  # U+0000 to U+07FF have shorter forms
            row = row.copy()
            row[:32] = -1
        third[i] = nodes.code(row)
    root[0xE0:0xF0] = third[:16]
    fourth = np.full((5, _BLOCK), -1, dtype=np.int32)
    fourth.ravel()[16:len(third)] = third[16:]
    for i, row in enumerate(fourth):
        root[0xF0 + i] = nodes.code(row)


def meets(rows: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """bool [rows, sets]: whether a row (bool [rows, atoms]) and a set (bool [sets, atoms]) have
    an atom in common."""
    a, b = _words(rows), _words(sets)
    out = np.zeros((len(a), len(b)), dtype=bool)
    for start in range(0, len(a), 2048):  # what lies between is eight times as large
        part = slice(start, start + 2048)
        for word in range(a.shape[1]):
            out[part] |= (a[part, word, None] & b[None, :, word]) != 0
    return out


def _words(bits: np.ndarray) -> np.ndarray:
    packed = np.packbits(bits, axis=1)
    whole = np.zeros((len(bits), max(-(-packed.shape[1] // 8), 1) * 8), dtype=np.uint8)
    whole[:, :packed.shape[1]] = packed
    return whole.view(np.uint64)


def _reach(table: np.ndarray, atoms: int) -> np.ndarray:
    """`reach` of a table [nodes, 256]; children come before their parents, the root last."""
    count = len(table)
    dead = atoms + count - 1
    # Inner nodes know continuation bytes only.
    inside = table[1:, 128:192]
    held = np.zeros((count, atoms + count), dtype=bool)
    held[0, table[0]] = True
    if count > 1:
        held[np.arange(1, count)[:, None], inside] = True
    held[:, dead] = False
    reach = held[:, :atoms].copy()
    parents = np.flatnonzero(held[1:, atoms:].any(axis=1)) + 1
    for node in (*parents.tolist(), 0):
        children = np.flatnonzero(held[node, atoms:]) + 1
        if len(children):
            reach[node] |= reach[children].any(axis=0)
    return reach
