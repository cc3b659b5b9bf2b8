"""Sets of code points, and the partition of several sets into atoms.

Surrogates belong to no set: no text that is UTF-8 holds one.  The Unicode classes are those of the
running Python's own tables, so that they agree with its `re`.  Knows nothing of patterns.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from sglc.grammar.disk_cache import DiskCache
from sglc.grammar.unicode_classes import unicode_class

LAST = 0x10FFFF
Range = tuple[int, int]


class CharSet:
    """An immutable set of code points: sorted, disjoint, non-adjacent inclusive `ranges`."""

    __slots__ = ("_hash", "_key", "ranges")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.ranges = _normal(ranges)
        self._hash: int | None = None
        self._key: str | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, CharSet) and self.ranges == other.ranges)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.ranges)
        return self._hash

    def __contains__(self, code: int) -> bool:
        i = bisect_right(self.ranges, (code, LAST + 1)) - 1
        return i >= 0 and self.ranges[i][1] >= code

    def __or__(self, other: CharSet) -> CharSet:
        return CharSet(self.ranges + other.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __repr__(self) -> str:
        return f"CharSet({self.key})"

    @property
    def size(self) -> int:
        return sum(hi - lo + 1 for lo, hi in self.ranges)

    @property
    def key(self) -> str:
        """A text that names the set: the ranges in hexadecimal, or a hash of many of them."""
        if self._key is None:
            text = ",".join(f"{lo:x}" if lo == hi else f"{lo:x}-{hi:x}" for lo, hi in self.ranges)
            if len(text) > 120:
                text = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
            self._key = text
        return self._key

    def negate(self) -> CharSet:
        gaps, start = [], 0
        for lo, hi in self.ranges:
            gaps.append((start, lo - 1))
            start = hi + 1
        gaps.append((start, LAST))
        return CharSet(gaps)


def _normal(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Sorted and merged; empty ranges and surrogates left out."""
    out: list[Range] = []
    for lo, hi in sorted(ranges):
        if lo > hi:
            continue
        if lo <= 0xDFFF and hi >= 0xD800:
            pieces = [(lo, 0xD7FF)] if lo < 0xD800 else []
            if hi > 0xDFFF:
                pieces.append((0xE000, hi))
        else:
            pieces = [(lo, hi)]
        for low, high in pieces:
            if out and low <= out[-1][1] + 1:
                if high > out[-1][1]:
                    out[-1] = (out[-1][0], high)
            else:
                out.append((low, high))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Atoms:
    """The coarsest partition in which every given set is a union of parts ("atoms").

    `starts[i]` opens an interval that belongs to atom `ids[i]` (-1: to no set).  Atoms are
    numbered by their first code point.  `members[s]`: the atoms of set s, ascending.
    """

    starts: tuple[int, ...]
    ids: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    firsts: tuple[int, ...]
    lasts: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.firsts)

    def intervals(self) -> Iterable[tuple[int, int, int]]:
        """(first code point, last code point, atom) in order, those of no set left out."""
        ends = (*self.starts[1:], LAST + 1)
        for lo, end, atom in zip(self.starts, ends, self.ids, strict=True):
            if atom >= 0:
                yield lo, end - 1, atom

    def charset(self, atoms: Iterable[int]) -> CharSet:
        wanted = frozenset(atoms)
        return CharSet((lo, hi) for lo, hi, atom in self.intervals() if atom in wanted)


def partition(sets: Sequence[CharSet]) -> Atoms:
    """The atoms of `sets`, by one sweep over the borders of their ranges."""
    toggles: dict[int, int] = {}
    for i, charset in enumerate(sets):
        bit = 1 << i
        for lo, hi in charset.ranges:
            toggles[lo] = toggles.get(lo, 0) ^ bit
            toggles[hi + 1] = toggles.get(hi + 1, 0) ^ bit
    toggles.pop(LAST + 1, None)
    starts: list[int] = [0]
    ids: list[int] = [-1]
    atom_of: dict[int, int] = {}
    firsts: list[int] = []
    inside = 0
    for pos in sorted(toggles):
        inside ^= toggles[pos]
        atom = -1
        if inside:
            atom = atom_of.setdefault(inside, len(firsts))
            if atom == len(firsts):
                firsts.append(pos)
        if atom != ids[-1]:
            if pos == starts[-1]:
                ids[-1] = atom
            else:
                starts.append(pos)
                ids.append(atom)
    members: list[list[int]] = [[] for _ in sets]
    for inside, atom in atom_of.items():
        while inside:
            low = inside & -inside
            members[low.bit_length() - 1].append(atom)
            inside ^= low
    sizes, lasts = [0] * len(firsts), [0] * len(firsts)
    for lo, end, atom in zip(starts, [*starts[1:], LAST + 1], ids, strict=True):
        if atom >= 0:
            sizes[atom] += end - lo
            lasts[atom] = end - 1
    return Atoms(tuple(starts), tuple(ids), tuple(tuple(m) for m in members), tuple(sizes),
                 tuple(firsts), tuple(lasts))


ANY = CharSet([(0, LAST)])
NEWLINE = CharSet([(10, 10)])
_ASCII_CLASSES = {
    "d": CharSet([(48, 57)]),
    "s": CharSet([(9, 13), (32, 32)]),
    "w": CharSet([(48, 57), (65, 90), (95, 95), (97, 122)]),
}


@lru_cache(maxsize=16)
def category(letter: str, ascii_only: bool) -> CharSet:
    r"""The code points that `\d`, `\s`, `\w`, `\D`, `\S` or `\W` matches in Python's `re`."""
    lower = letter.lower()
    if letter != lower:
        return category(lower, ascii_only).negate()
    if ascii_only:
        return _ASCII_CLASSES[lower]
    written = unicode_class(lower)
    if written is not None:
        return CharSet(written)
    (flat,) = _kept(f"class {lower}", lambda: (_flat(_unicode_class(lower)),))
    return CharSet(zip(flat[::2], flat[1::2], strict=True))


def _flat(charset: CharSet) -> list[int]:
    return [code for pair in charset.ranges for code in pair]


def _kept(what: str, make: Callable[[], tuple[list[int], ...]]) -> tuple[list[int], ...]:
    """`make()`, or what it gave to another process with the same Unicode tables: reading them
    takes ten milliseconds or more."""
    cache, key = DiskCache.of_environment(), f"{what} of Unicode {unicodedata.unidata_version}"
    arrays = cache.load(key)
    if arrays is not None:
        return tuple(a.tolist() for a in arrays.values())
    made = make()
    cache.store(key, {str(i): np.array(m, dtype=np.int32) for i, m in enumerate(made)})
    return made


def _unicode_class(lower: str) -> CharSet:
    if lower == "s":  # each piece of the split names its own place: the text is 0, 1, 2, ...
        everything = _every_character()
        black = [(ord(p[0]), ord(p[-1])) for p in everything.split()]
        return CharSet([*black, (0xD800, 0xDFFF), (len(everything), LAST)]).negate()
    if lower == "w":
        found = re.finditer(r"\w+", _every_character())
        return CharSet((m.start(), m.end() - 1) for m in found)
    return CharSet((m.start(), m.end() - 1) for m in re.finditer(r"\d+", _every_character()))


@lru_cache(maxsize=1)
def _every_character() -> str:
    """All code points in order, U+0000 in place of the surrogates' code points.

    Up to Unicode 17 nothing above plane 3 is a letter, a digit, white space or cased, so there
    the rest is left out: most of the cost would be reading unassigned planes.
    """
    version = tuple(map(int, unicodedata.unidata_version.split(".")))
    end = 0x40000 if version < (18,) else LAST + 1
    codes = np.arange(end, dtype="<u4")
    codes[0xD800:0xE000] = 0
    return codes.tobytes().decode("utf-32-le")


@lru_cache(maxsize=1)
def _case_orbits() -> tuple[tuple[int, ...], ...]:
    def flat() -> tuple[list[int], list[int]]:
        orbits = _unicode_orbits()
        return [code for orbit in orbits for code in orbit], [len(orbit) for orbit in orbits]

    codes, sizes = _kept("case", flat)
    ends = list(accumulate(sizes))
    return tuple(tuple(codes[end - size:end]) for end, size in zip(ends, sizes, strict=True))


def _unicode_orbits() -> tuple[tuple[int, ...], ...]:
    """Classes of code points that `re.IGNORECASE` takes for equal (those of one are left out).

    `re` compares simple lower cases, and lower-case letters that share their upper case.
    """
    lower_of: dict[int, int] = {}
    same_upper: dict[str, set[int]] = {}
    everything = _every_character()
    for start in range(0, len(everything), 256):
        chunk = everything[start:start + 256]
        if chunk.lower() == chunk and chunk.upper() == chunk:
            continue
        for c in chunk:
            low, up = c.lower(), c.upper()
            if low != c or up != c:
                lower_of[ord(c)] = ord(low[0])
                same_upper.setdefault(up, set()).add(ord(low[0]))
    leader = {low: low for low in lower_of.values()}

    def find(x: int) -> int:
        while leader[x] != x:
            x = leader[x]
        return x

    for lows in same_upper.values():
        first, *rest = sorted(lows)
        for other in rest:
            leader[find(other)] = find(first)
    orbits: dict[int, set[int]] = {}
    for code, lower in lower_of.items():
        orbits.setdefault(find(lower), set()).update((code, lower))
    return tuple(tuple(sorted(orbit)) for orbit in orbits.values() if len(orbit) > 1)


@lru_cache(maxsize=1)
def _orbit_of() -> dict[int, tuple[int, ...]]:
    return {code: orbit for orbit in _case_orbits() for code in orbit}


def ignore_case(charset: CharSet, ascii_only: bool = False) -> CharSet:
    """`charset` with everything that `re.IGNORECASE` takes for equal to one of its members."""
    if ascii_only:
        more = [(c ^ 32, c ^ 32) for lo, hi in charset.ranges
                for c in range(lo, min(hi, 127) + 1) if chr(c).isalpha()]
    elif charset.size <= 256:
        orbit_of = _orbit_of()
        more = [(x, x) for lo, hi in charset.ranges for c in range(lo, hi + 1)
                for x in orbit_of.get(c, ())]
    else:
        more = [(x, x) for orbit in _case_orbits() if any(c in charset for c in orbit)
                for x in orbit]
    return CharSet((*charset.ranges, *more)) if more else charset
