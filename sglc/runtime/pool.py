"""The pool of KV slots: which token positions of KV memory are free.

A slot holds the keys and values of one token; pages have size one, so that sequences share at
token granularity.  The pool hands out slot numbers and takes them back; it does not know who
holds them, what they mean, or where the memory is.
"""

from __future__ import annotations

import numpy as np


class SlotPool:
    """A stack of free slot numbers `0 .. total - 1`."""

    __slots__ = ("_held", "_stack", "free", "total")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError("a pool needs at least one slot")
        self.total = total
        self.free = total
        self._stack = np.arange(total - 1, -1, -1, dtype=np.int64)
        self._held = np.zeros(total, dtype=bool)

    def alloc(self, n: int) -> np.ndarray:
        """`n` slots, int64, shape (n,), owned by the caller.  There must be as many free."""
        top = self.free
        if n > top:
            raise AssertionError(f"{n} slots asked for, {top} are free")
        self.free = top - n
        slots: np.ndarray = self._stack[top - n:top].copy()
        self._held[slots] = True
        return slots

    def release(self, slots: np.ndarray) -> None:
        """Take slots back.  Each must be held."""
        n = len(slots)
        if not n:
            return
        if not self._held[slots].all():
            raise AssertionError("a slot was released twice")
        self._held[slots] = False
        self._stack[self.free:self.free + n] = slots
        self.free += n

    def check(self, held: np.ndarray) -> None:
        """Assert that `held` (all slots that anybody holds) and the free ones are, together,
        every slot exactly once."""
        everything = np.concatenate([self._stack[:self.free], held])
        assert len(everything) == self.total, (self.free, len(held), self.total)
        assert np.array_equal(np.sort(everything), np.arange(self.total)), "a slot has two owners"
        assert int(self._held.sum()) == self.total - self.free
        assert bool(self._held[held].all())
