"""SGLang's scheduling policies: `fcfs-lru`, `lpm` and `dfs-weight`.

Imitated: SGLang 0.5 (`sglang/srt/managers/schedule_policy.py`: `SchedulePolicy`,
`PrefillAdder`; `schedule_batch.py`: `retract_decode`; `scheduler.py`: `NewTokenRatioTracker`),
RadixAttention with pages of one token.  What is kept of it:

- a request's prefix is looked up when it starts, up to the token before the last (before the
  scored ones), and enters the tree when its step is over: equal prompts that start in one step
  are computed each for itself;
- a request starts if its tokens and all of its `max_new_tokens` (at most 4096) fit beside
  `new_token_ratio` of what the running ones may still generate; the ratio starts at 0.7, falls
  to 0.14 of that over 600 decode steps, and is set anew by a retraction;
- when slots run out, the sequence with the fewest output tokens (of those, the longest prompt)
  is sent back to the end of the queue;
- leaves are evicted least recently used first.

What is not: prefill in steps of its own (chunks share steps with decodes, as everywhere here;
SGLang's `--enable-mixed-chunk`), and one chunked request at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglc.runtime.policies.base import Memory
from sglc.runtime.sequence import Sequence

if TYPE_CHECKING:
    from sglc.runtime.radix import Node

CLIP = 4096  # CLIP_MAX_NEW_TOKENS_ESTIMATION
QUEUE = 128  # `lpm` is first come first served above this
CHECK = 32  # IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD
HOLD_BACK = 32  # IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD
RATIO, LOWEST, STEPS = 0.7, 0.7 * 0.14, 600  # of new tokens
AHEAD = 20  # decode steps that a retraction looks ahead


class FcfsLru:
    """SGLang's `--schedule-policy fcfs`: first come, first served."""

    name = "fcfs-lru"
    grain = 1
    at_issue = False
    exact = False
    pins = False
    patient = False

    def __init__(self) -> None:
        self.ratio = RATIO
        self._reserved = 0.0
        self._retracted = False

    def place(self, seq: Sequence, serial: int) -> tuple[Any, ...]:
        return (serial,)

    def reorder(self, memory: Memory) -> list[tuple[Any, ...]] | None:
        return None

    def turns(self, prefilling: list[Sequence]) -> list[Sequence]:
        return prefilling

    def begin(self, memory: Memory) -> None:
        running = memory.running
        if not running:
            self.ratio = RATIO
        elif not self._retracted:
            self.ratio = max(LOWEST, self.ratio - (RATIO - LOWEST) / STEPS)
        self._retracted = False
        self._reserved = sum([self.ratio * _left(s) + max(0, s.target - s.pos) for s in running])

    def fits(self, seq: Sequence, memory: Memory, budget: int) -> bool:
        return seq.target - seq.pos + _left(seq) < memory.available - self._reserved

    def started(self, seq: Sequence, known: int) -> None:
        self._reserved += max(0, seq.target - seq.pos) + _left(seq)

    def victim(self, running: list[Sequence]) -> Sequence:
        decoding = [s for s in running if s.decoding] or running
        return min(decoding, key=lambda s: (s.count, -s.prompt_len))

    def retracted(self, seq: Sequence, running: list[Sequence]) -> None:
        self._retracted = True
        done = sum([s.count for s in running]) + AHEAD * len(running)
        self.ratio = min(1.0, done / (sum([s.limit for s in running]) + 1))

    def left(self, seq: Sequence) -> None:
        pass


class Lpm(FcfsLru):
    """SGLang's `--schedule-policy lpm`: the longest prefix in the cache goes first.

    With more than 128 waiting it is first come, first served.  A request of which the cache
    knows at most 32 tokens goes last while one before it in the queue, not itself put last,
    starts with the same 32.  (It goes last, it is not kept out: where a step has room for it,
    SGLang computes it twice.)
    """

    name = "lpm"

    def place(self, seq: Sequence, serial: int) -> tuple[Any, ...]:
        return (2, serial)  # behind what was sorted

    def reorder(self, memory: Memory) -> list[tuple[Any, ...]] | None:
        waiting = memory.queue()
        if len(waiting) > QUEUE:
            return None
        places: list[tuple[Any, ...]] = []
        seen: set[tuple[Node, bytes]] = set()
        for i, seq in enumerate(waiting):
            known = memory.tree.match(seq.root, seq.ids, 0, seq.want)[1]
            back = False
            if known <= CHECK and len(seq.ids) >= HOLD_BACK:
                start = (seq.root, seq.ids[:HOLD_BACK].tobytes())
                back = start in seen
                if not back:
                    seen.add(start)
            places.append((1, i) if back else (0, -known, i))
        return places


class DfsWeight(FcfsLru):
    """SGLang's `--schedule-policy dfs-weight`: depth first through the cache's tree, the branch
    that most of the waiting requests end in first, what ends at a node after its children's."""

    name = "dfs-weight"

    def reorder(self, memory: Memory) -> list[tuple[Any, ...]] | None:
        waiting = memory.queue()
        ends: dict[Node, list[int]] = {}
        weights: dict[Node, int] = {}  # of the tree, as far as requests end in it
        roots: dict[Node, None] = {}
        for i, seq in enumerate(waiting):
            node = memory.tree.match(seq.root, seq.ids, 0, seq.want)[0]
            ends.setdefault(node, []).append(i)
            while True:
                weights[node] = weights.get(node, 0) + 1
                parent = node.parent
                if parent is None:
                    roots[node] = None
                    break
                node = parent
        order: list[int] = []
        stack = [(root, False) for root in reversed(roots)]
        while stack:
            node, visited = stack.pop()
            if visited:
                order.extend(ends.get(node, ()))
                continue
            stack.append((node, True))
            children = sorted([child for child in node.children.values() if child in weights],
                              key=lambda child: -weights[child])
            stack.extend((child, False) for child in reversed(children))
        places: list[tuple[Any, ...]] = [()] * len(waiting)
        for turn, i in enumerate(order):
            places[i] = (turn,)
        return places


def _left(seq: Sequence) -> int:
    """New tokens that it may still generate, as far as SGLang looks."""
    return min(seq.limit - seq.count, CLIP)
