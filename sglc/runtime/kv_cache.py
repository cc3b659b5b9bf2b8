"""The KV cache as sequences use it: slots of the pool, shared through the radix tree.

A sequence reads what the tree has, takes slots for what it computes, and gives the tree what is
its own when it stops.  When slots run out, unlocked leaves of the tree go.  What a failed step
was to write must never be read, so whatever enters the tree names the last step that may still
have to write it.

This module knows sequences' page tables and pins.  It does not know who waits or runs, nor what
the policy is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from sglc.runtime.pins import Pin
from sglc.runtime.pool import SlotPool
from sglc.runtime.radix import RadixTree
from sglc.runtime.request import Request
from sglc.runtime.sequence import Sequence


class KvCache:
    """A pool of `tokens` slots, and the tree over it.

    grain: tokens that are shared as one.  pins: whether requests' pins are honoured.
    """

    def __init__(self, tokens: int, grain: int, *, pins: bool) -> None:
        self.pool = SlotPool(tokens)
        self.tree = RadixTree(self.pool, grain)
        self._pins = pins
        self._open: list[int] = []  # numbers of steps that are made or under way
        self._steps = 0

    # -- slots -------------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """Slots that can be had: free ones, and unlocked KV."""
        return self.pool.free + self.tree.cached

    @property
    def in_use(self) -> int:
        """Slots of running sequences, in the tree or of their own."""
        return self.pool.total - self.pool.free - self.tree.cached

    def take(self, n: int) -> np.ndarray:
        """`n` slots, of which there must be as many available."""
        if n > self.pool.free:
            self.tree.evict(n - self.pool.free)
        return self.pool.alloc(n)

    def flush(self) -> int:
        """Free all KV that no running sequence reads; returns how many tokens."""
        return self.tree.evict(self.tree.cached)

    # -- steps -------------------------------------------------------------------------------

    def begin_step(self) -> int:
        """The number of a new step, which may write KV from now on."""
        self._steps += 1
        self._open.append(self._steps)
        self.tree.clock += 1
        return self._steps

    def end_step(self, number: int) -> None:
        """A step has written what it was to write, or had nothing to write."""
        self._open.remove(number)

    def fail_steps(self, numbers: Collection[int]) -> None:
        """These steps failed: forget what they were to write."""
        self.tree.remove_steps(numbers)
        self._open = [number for number in self._open if number not in numbers]

    @property
    def _newest(self) -> int:
        """The last step whose failure would leave KV unwritten; -1 for none."""
        return self._open[-1] if self._open else -1

    # -- sequences ---------------------------------------------------------------------------

    def walk(self, seq: Sequence, end: int) -> int:
        """Follow the tree from where the sequence is, at most to `end`, and lock what is found.
        Returns the tokens found, none for a sequence that had them all before it was
        retracted."""
        pos = seq.pos
        if pos < end:
            node, end, pieces = self.tree.match(seq.node, seq.ids, pos, end)
            if end > pos:
                self.tree.lock(node, seq.node)
                seq.node = node
                seq.place(pieces, end)
                return 0 if seq.retracted else max(0, min(end, seq.prompt_len) - pos)
        return 0

    def unwalk(self, seq: Sequence) -> None:
        """Let go of what was found for a sequence that has computed nothing."""
        self.tree.unlock(seq.node)
        seq.reset()

    def share(self, seq: Sequence) -> None:
        """Give the tree what is computed of a running sequence's prompt; what the tree has already
        is read from there."""
        own = seq.own
        end = seq.pos - seq.pos % self.tree.grain
        if own == end:
            return
        node, known, pieces = self.tree.match(seq.node, seq.ids, own, end)
        seq.known = min(seq.known, own)
        if known > own:
            self.tree.lock(node, seq.node)
            self.pool.release(seq.context[own:known].copy())
            seq.context[own:known] = np.concatenate(pieces)
        if known < end:
            node = self.tree.extend(node, seq.ids[known:end], seq.context[known:end].copy(),
                                    until=self._newest)
        seq.node = node
        seq.own = end

    def give_back(self, seq: Sequence, hidden: Any) -> None:
        """Give the sequence's own KV to the tree, and unlock its path.  `hidden`: the hidden
        state of its last position, if it is at hand.  What finished is held by its pins."""
        own, pos = seq.own, seq.pos
        end = node = seq.node
        if own < pos:
            end = self.tree.insert(node, seq.ids, own, pos, seq.context[own:pos].copy(),
                                   self._newest)
            if hidden is not None and end is not node and end.hidden is None:
                end.hidden = hidden.clone()
        if seq.finished and seq.request.pins and self._pins and not seq.root.dropped:
            for pin, length in seq.request.pins:
                at = end
                if length is not None and seq.group is not None and seq.number != seq.group.lead:
                    continue  # held by the first choice
                if length is not None and length < pos:
                    at = self.tree.match(seq.root, seq.ids, 0, length)[0]
                self.tree.hold(at, pin)
        self.tree.unlock(node)

    def discard(self, seq: Sequence) -> None:
        """Free the sequence's own KV, and unlock its path."""
        self.pool.release(seq.context[seq.own:seq.pos])
        self.tree.unlock(seq.node)

    def discard_last(self, seq: Sequence) -> None:
        """Free the sequence's last position, which is its own."""
        seq.pos -= 1
        self.pool.release(seq.context[seq.pos:seq.pos + 1])

    # -- pins --------------------------------------------------------------------------------

    def used(self, request: Request) -> None:
        """A request has ended, or never started: pins that count their uses may end with it."""
        for pin, _ in request.pins:
            if pin.uses is not None and not pin.closed:
                pin.uses -= 1
                if pin.uses <= 0:
                    self.tree.close(pin)

    def unpin(self, pin: Pin, *, free: bool) -> None:
        """End a pin; with `free`, what nobody else holds or reads is freed at once."""
        if not pin.closed:
            self.tree.close(pin, free=free)
