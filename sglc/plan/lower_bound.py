"""The least prefill that a set of sequences needs: every distinct prefix of ids once, but for
those that generation itself writes.

Computed from the final sequences of a run, whatever ran them.  Knows no engine and no program.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class FinalSequence:
    """One sequence as a run left it.

    ids: the prompt, and behind it what was generated.  kv: how many of the ids had to be read
    (had KV) when it ended.  prompt: how many of the ids were given; the positions `prompt ..
    kv - 1` were written by decoding, or as forced tokens.  For a choice that is scored all ids
    are given, and the last one is not read.
    """

    ids: Sequence[int]
    kv: int
    prompt: int


@dataclass(frozen=True, slots=True)
class LowerBound:
    """Token counts.  prefill: the least prompt positions that must be computed.  written:
    distinct positions that decoding or forcing writes.  positions: their sum, which is the room
    that holds everything at once (the working set).  longest: of one sequence.  given: prompt
    positions with none shared.
    """

    prefill: int
    written: int
    positions: int
    longest: int
    given: int


def lower_bound(sequences: Iterable[FinalSequence]) -> LowerBound:
    """The bound for sequences that could all share KV, starting from an empty cache.

    Sequences are compared in the order of their ids, where those with a common prefix are
    neighbours; time is that of sorting.  Ids must lie in 0 .. 2**64 - 1.
    """
    read = [s for s in sequences if s.kv > 0]
    given = sum([min(s.prompt, s.kv) for s in read])
    size = 4
    try:
        keys = [_key(s, "I") for s in read]
    except OverflowError:  # ids of images
        size = 8
        keys = [_key(s, "Q") for s in read]
    rows = sorted({(key, min(s.prompt, s.kv)) for key, s in zip(keys, read, strict=True)})
    positions = written = longest = 0
    before = b""
    marks = bytearray()  # of the current path: which positions are known to be written
    for key, prompt in rows:
        shared = common_bytes(before, key) // size
        length = len(key) // size
        positions += length - shared
        longest = max(longest, length)
        del marks[shared:]
        marks.extend(bytes(length - shared))
        written += marks.count(0, prompt, length)
        marks[prompt:length] = b"\x01" * (length - prompt)
        before = key
    return LowerBound(positions - written, written, positions, longest, given)


def _key(sequence: FinalSequence, kind: Literal["I", "Q"]) -> bytes:
    """The ids that were read, as bytes that sort as the ids do: four or eight each."""
    packed = array(kind, sequence.ids[: sequence.kv])
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


def common_bytes(a: bytes, b: bytes) -> int:
    """The length of the longest common prefix."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    step = 64
    while a[low:low + step] == b[low:low + step]:
        low += step
        step *= 2
    high = min(high, low + step)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
