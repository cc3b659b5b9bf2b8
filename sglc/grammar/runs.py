"""Tokens made of the characters of one set, sorted out once per vocabulary.

Where a state and its successors all accept the same wide set S (`\\w{1,50}`, the inside of a
string), a token of n characters of S is allowed exactly if the state can take n of them.  Only
tokens that leave S, or outlast the run, are left to walk.  Knows sets, not automata.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sglc.grammar.charset import CharSet
from sglc.grammar.disk_cache import Arrays, DiskCache
from sglc.grammar.utf8 import front_end
from sglc.grammar.vocab import Vocabulary

_SMALL = 4000  # tokens; below, making a Run is as fast as reading it


@dataclass(frozen=True, slots=True)
class Run:
    """The trie seen by one set of characters S.

    Attributes:
        depth: characters of the longest token made of S alone.
        words: int32 [depth + 1, words]: masks of the tokens of at most n characters of S (one
            that ends inside of a character counts it).
        exits, exit_depth, exit_partial: trie edges that leave S, as the node they lead to; how
            many characters of S come before; which bytes of an unfinished one (an index of
            `partials`).  Sorted by depth: `exits[:exit_end[n]]` come after fewer than n.
        partials: the bytes of unfinished characters; 0 is `b""`.
        borders: nodes reached by whole characters of S; those after exactly n of them are
            `borders[border_start[n]:border_start[n + 1]]`.
    """

    depth: int
    words: np.ndarray
    exits: np.ndarray
    exit_depth: np.ndarray
    exit_partial: np.ndarray
    exit_end: np.ndarray
    partials: tuple[bytes, ...]
    borders: np.ndarray
    border_start: np.ndarray


def kept_run(charset: CharSet, vocab: Vocabulary, cache: DiskCache) -> Run:
    """The Run of `charset`, from a file if another process has made it."""
    if vocab.size < _SMALL:
        return run_of(charset, vocab)
    key = f"run {charset.key} {vocab.fingerprint}"
    arrays = cache.load(key)
    if arrays is not None:
        return _from_arrays(arrays)
    run = run_of(charset, vocab)
    cache.store(key, _arrays(run))
    return run


def _arrays(run: Run) -> Arrays:
    found = {f.name: getattr(run, f.name) for f in fields(run)}
    data = b"".join(run.partials)
    return {**found, "depth": np.array([run.depth]), "partials": np.frombuffer(data, np.uint8),
            "sizes": np.array([len(p) for p in run.partials], dtype=np.int32)}


def _from_arrays(arrays: Arrays) -> Run:
    found: dict[str, Any] = dict(arrays)
    data, at, partials = found["partials"].tobytes(), 0, []
    for size in found.pop("sizes").tolist():
        partials.append(data[at:at + size])
        at += size
    return Run(**{**found, "depth": int(found["depth"][0]), "partials": tuple(partials)})


def run_of(charset: CharSet, vocab: Vocabulary) -> Run:
    """The Run of `charset`; one pass over the part of the trie that it reaches."""
    front = front_end(((lo, hi, 0) for lo, hi in charset.ranges), 1)
    first, byte, token = vocab.first, vocab.byte, vocab.token
    # Depths are small ints on purpose: numpy sorts them in linear time.
    nodes, u, partial = (np.zeros(1, np.int32) for _ in range(3))
    depth = np.zeros(1, np.int16)
    borders, border_depths = [nodes], [depth]
    ids, lengths = [], []
    exits: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(nodes):
        begin = first[nodes]
        counts = first[nodes + 1] - begin
        ends = np.cumsum(counts, dtype=np.int32)
        owner = np.repeat(np.arange(len(nodes), dtype=np.int32), counts)
        children = (begin - ends + counts)[owner] + np.arange(len(owner), dtype=np.int32)
        codes = front.table[(u[owner] << 8) + byte[children]]
        alive = codes != front.dead
        left = np.flatnonzero(~alive)
        exits.append((children[left], depth[owner[left]], partial[owner[left]]))
        if len(left):
            kept = np.flatnonzero(alive)
            children, owner, codes = children[kept], owner[kept], codes[kept]
        nodes, u = children, codes  # code 0 is the one atom, code n the inner node n
        done = u == 0
        # The bytes of an unfinished character, as a number.
        partial = np.where(done, np.int32(0), (partial[owner] << 8) + byte[nodes])
        depth = depth[owner]
        here = token[nodes]
        real = np.flatnonzero(here >= 0)
        ids.append(here[real])
        lengths.append(depth[real] + np.int16(1))
        depth = depth + done
        borders.append(nodes[done])
        border_depths.append(depth[done])
    return _sorted(vocab, (np.concatenate(ids), np.concatenate(lengths)),
                   (np.concatenate(borders), np.concatenate(border_depths)),
                   tuple(np.concatenate([e[i] for e in exits]) for i in range(3)))


def _sorted(vocab: Vocabulary, tokens: tuple[np.ndarray, np.ndarray],
            borders: tuple[np.ndarray, np.ndarray], exits: tuple[np.ndarray, ...]) -> Run:
    ids, lengths = tokens
    longest = int(lengths.max(initial=0))
    masks = np.zeros((longest + 1, vocab.words), dtype=np.int32)
    allowed = np.zeros(vocab.words * 32, dtype=bool)
    by_length = np.argsort(lengths, kind="stable")
    cuts = np.searchsorted(lengths[by_length], np.arange(1, longest + 2))
    for n in range(1, longest + 1):
        fresh = ids[by_length[cuts[n - 1]:cuts[n]]]
        if not len(fresh):
            masks[n] = masks[n - 1]
            continue
        allowed[fresh] = True
        allowed[vocab.twins] = allowed[vocab.twin_of]
        masks[n] = vocab.pack(allowed)
    levels = np.arange(longest + 2)
    order = np.argsort(borders[1], kind="stable")
    exit_order = np.argsort(exits[1], kind="stable")
    exit_depth = exits[1][exit_order]
    numbers, exit_partial = np.unique(np.append(exits[2][exit_order], 0), return_inverse=True)
    partials = tuple(int(n).to_bytes((int(n).bit_length() + 7) // 8, "big") for n in numbers)
    return Run(longest, masks, exits[0][exit_order], exit_depth, exit_partial[:-1],
               np.searchsorted(exit_depth, levels), partials, borders[0][order],
               np.searchsorted(borders[1][order], levels))
