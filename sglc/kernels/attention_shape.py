"""Shapes of attention on the GPU: heads and tiles, launch sizes, and the form of a work list.

How a work list comes about is in `attention_units`; who runs it, in `unit_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNIT = 16  # integers a unit
NARROW, MIDDLE, WIDE = 0, 1, 2  # classes of units, by how many queries they hold

@dataclass(frozen=True, slots=True)
class Shape:
    """Heads, and how they are tiled.

    A unit serves one KV head; it holds queries times `group` query heads, at most `tiles` of its
    class of them.  step: keys in multiples of which pieces are cut.  programs: how many units of
    a class the device works on at once.  wide_from: a shared run of at least so many queries
    times heads is cut into wide units.
    """

    heads: int
    kv_heads: int
    dim: int
    tiles: tuple[int, int, int] = (16, 64, 128)
    step: int = 64
    programs: tuple[int, int, int] = (528, 264, 264)
    wide_from: int = 512

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads or self.group > self.tiles[MIDDLE]:
            raise ValueError(f"{self.heads} query heads on {self.kv_heads} KV heads")

    @property
    def packed(self) -> int:
        """Rows with keys of their own that a narrow unit holds at most, 1 to 4."""
        return min(4, max(1, self.queries(NARROW)))

    @property
    def group(self) -> int:
        """Query heads that read one KV head."""
        return self.heads // self.kv_heads

    def queries(self, kind: int) -> int:
        """Queries that a unit of class `kind` holds."""
        return self.tiles[kind] // self.group


@dataclass(frozen=True, slots=True)
class Scores:
    """What a layer does with scores, and which keys a token sees.

    window: how many keys, its own included (Beltagy et al., 2020); 0 is all.  cap: c of
    c * tanh(s / c); 0 for none.  scale: of the scores before it; 0 means 1 / sqrt(dim).
    """

    window: int = 0
    cap: float = 0.0
    scale: float = 0.0


PLAIN = Scores()


@dataclass(frozen=True, slots=True)
class Grid:
    """How much is launched: units of each class, and tokens to merge (0: nothing is split)."""

    narrow: int
    middle: int
    wide: int
    merged: int

    def covers(self, other: Grid) -> bool:
        """Whether a launch of this size does all of `other`."""
        return (self.narrow >= other.narrow and self.middle >= other.middle
                and self.wide >= other.wide and self.merged >= other.merged)


@dataclass(frozen=True, slots=True)
class Limits:
    """What device memory has room for: a grid, entries, and partial results."""

    grid: Grid
    entries: int
    parts: int

    @classmethod
    def for_tokens(cls, tokens: int, shape: Shape) -> Limits:
        """Room for any rows of `tokens` tokens, and for splits and sharing that pay."""
        spare = 4 * -(-shape.programs[NARROW] // shape.kv_heads)
        # A row of more tokens than a class holds is of the next one.
        grid = Grid(tokens + spare, tokens // (shape.queries(NARROW) + 1) + spare,
                    tokens // (shape.queries(MIDDLE) + 1) + spare, tokens)
        return cls(grid, 5 * tokens + spare, min(10 * tokens, 2 * tokens + 1024) + spare)

    @classmethod
    def of_pieces(cls, tokens: int, pieces: int) -> Limits:
        """Room for any rows of `tokens` tokens in units of one class (middle), whose keys are cut
        into so many pieces at most."""
        return cls(Grid(0, tokens * pieces, 0, tokens), tokens, tokens * pieces)


@dataclass(frozen=True, slots=True)
class Units:
    """A work list, int32.

    by_class: narrow, middle and wide units, (n, UNIT) each, longest first: 0 first entry,
        1 entries, 2 first key in the table, 3 keys, 4 begin, 5 keys that all its queries see,
        6 which piece of its block.  A packed (narrow) unit has the keys of several rows, one
        entry each, side by side: 8 + 2 i says how far from 2 the i-th row's keys are in the
        table, less the number of keys before them, which is 9 + 2 i.
    token, part, high: one number an entry (a query of a block): its token; the partial result
        of the block's first piece (-1: the unit writes the output itself); it sees keys up to
        high - begin of the unit.
    pointers: (tokens + 1,): partial results of token t are pointers[t] .. pointers[t + 1] - 1.
    """

    by_class: tuple[np.ndarray, np.ndarray, np.ndarray]
    token: np.ndarray
    part: np.ndarray
    high: np.ndarray
    pointers: np.ndarray

    @property
    def parts(self) -> int:
        """Partial results that are written."""
        return int(self.pointers[-1])

    @property
    def grid(self) -> Grid:
        """The smallest launch that does it."""
        return Grid(*map(len, self.by_class), len(self.pointers) - 1 if self.parts else 0)

    def fits(self, limits: Limits) -> bool:
        """Whether device memory of these limits can hold it."""
        return (limits.grid.covers(self.grid) and len(self.pointers) - 1 <= limits.grid.merged
                and len(self.token) <= limits.entries and self.parts <= limits.parts)
