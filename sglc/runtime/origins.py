"""How the prompts of a program come about, step by step: what streams of a run follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Origins:
    """Of slots with prompts: the regions they are made in, and how they grew.

    Regions are named by the slot of their activation.
    """

    def __init__(self) -> None:
        self._regions: dict[int, tuple[int, ...]] = {}
        # (previous slot, key of the call or None), or the arms of a branch: (region, last slot)
        self._origins: dict[int, Any] = {}

    def grown(self, slot: int, regions: tuple[int, ...], before: int, key: Any) -> None:
        """A prompt is that of slot `before` with more, which the call of `key` gave (None: a
        constant)."""
        if slot not in self._origins:
            self._regions[slot] = regions
            self._origins[slot] = (before, key)

    def merged(self, slot: int, regions: tuple[int, ...],
               arms: Sequence[tuple[int, int]]) -> None:
        """A prompt comes out of a branch: by arm, its region and the slot at its end."""
        self._regions[slot] = regions
        self._origins[slot] = list(arms)

    def chain(self, slot: int, region: int | None = None) -> list[Any]:
        """How the prompt in a slot grew (in one region): entries (slot, previous slot, key of the
        gen or None), and ("branch", [(region slot, chain)]) where it came out of a branch."""
        out: list[Any] = []
        while self._is_made_in(slot, region):
            origin = self._origins.get(slot)
            if origin is None:
                break
            if isinstance(origin, tuple):
                out.append((slot, *origin))
                slot = origin[0]
                continue
            out.append(("branch", [(arm, self.chain(end, arm)) for arm, end in origin]))
            slot = self._entry(origin[0][1], origin[0][0])
        out.reverse()
        return out

    def _is_made_in(self, slot: int, region: int | None) -> bool:
        return region is None or region in self._regions.get(slot, ())

    def _entry(self, slot: int, region: int) -> int:
        """The last prompt before the region on the way to `slot`."""
        while self._is_made_in(slot, region):
            origin = self._origins[slot]
            slot = origin[0] if isinstance(origin, tuple) else self._entry(origin[0][1],
                                                                           origin[0][0])
        return slot
