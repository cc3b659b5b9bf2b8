"""How the prompts of a program come about, step by step: what streams of a run follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Origins:
    """Of slots with prompts: the regions they are made in, how they grew, and which steps of the
    host chain come before they grow further.

    Regions are named by the slot of their activation.
    """

    def __init__(self) -> None:
        self._regions: dict[int, tuple[int, ...]] = {}
        # (previous slot, key of the call or None), or the arms of a branch: (region, last slot)
        self._origins: dict[int, Any] = {}
        self._ends: dict[int, frozenset[int]] = {}
        # Of a prompt, by step that has it as its root: the step's regions and source.
        self._steps: dict[int, list[tuple[tuple[int, ...], int]]] = {}
        self._inside: dict[int, list[int]] = {}  # the prompts that have steps in a region

    def stepped(self, slot: int, regions: tuple[int, ...], source: int) -> None:
        """A step of the host chain happens while the run's prompt is this one."""
        self._steps.setdefault(slot, []).append((regions, source))
        if regions:
            self._inside.setdefault(regions[-1], []).append(slot)

    def left(self, regions: tuple[int, ...], arms: Sequence[int], merge: int) -> None:
        """The arms of a branch in some regions have ended, with this source: outside, their
        steps have happened then."""
        for arm in arms:
            for slot in dict.fromkeys(self._inside.pop(arm, ())):
                self.stepped(slot, regions, merge)

    def _waits(self, slot: int, regions: tuple[int, ...],
               inside: frozenset[int]) -> tuple[int, ...]:
        """The sources that happen before a prompt grows further in some regions.  inside: the
        ends of the branches around."""
        return tuple(source for r, source in self._steps.get(slot, ())
                     if r == regions[:len(r)] and source not in inside)

    def grown(self, slot: int, regions: tuple[int, ...], before: int, key: Any) -> None:
        """A prompt is that of slot `before` with more, which the call of `key` gave (None: a
        constant)."""
        if slot not in self._origins:
            self._regions[slot] = regions
            self._origins[slot] = (before, key)

    def merged(self, slot: int, regions: tuple[int, ...], arms: Sequence[tuple[int, int]],
               end: int | None) -> None:
        """A prompt comes out of a branch: by arm, its region and the slot at its end.  end: the
        source with which the host chain leaves it, if that goes through its arms."""
        self._regions[slot] = regions
        self._origins[slot] = list(arms)
        self._ends[slot] = frozenset(() if end is None else (end,))

    def chain(self, slot: int, region: int | None = None,
              inside: frozenset[int] = frozenset()) -> list[Any]:
        """How the prompt in a slot grew (in one region): entries (slot, previous slot, key of the
        gen or None, waits), and ("branch", [(region slot, chain)], waits) where it came out of a
        branch.  waits: the sources that happen before."""
        out: list[Any] = []
        while self._is_made_in(slot, region):
            origin = self._origins.get(slot)
            if origin is None:
                break
            regions = self._regions[slot]
            if isinstance(origin, tuple):
                out.append((slot, *origin, self._waits(origin[0], regions, inside)))
                slot = origin[0]
                continue
            here = inside | self._ends[slot]
            slot = self._entry(origin[0][1], origin[0][0])
            out.append(("branch", [(arm, self.chain(end, arm, here)) for arm, end in origin],
                        self._waits(slot, regions, here)))
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
