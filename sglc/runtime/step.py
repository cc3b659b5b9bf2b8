"""One model step while the scheduler builds it: flat token arrays, rows, outputs, and who waits
for which hidden state.

Hidden states are named by an integer: `k >= 0` is output k of the step's forward pass, `k < 0`
the cached state number `-1 - k`.  The step does not decide anything and runs no model.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from sglc.runtime.batch import Batch, Row
from sglc.runtime.radix import Node

if TYPE_CHECKING:
    from sglc.runtime.sequence import Sequence


class Step:
    """A step over at most `capacity` new tokens.

    samples: (sequence, hidden) to draw a token from.  scores: (sequence, position, hidden): the
    log-probability of the id after `position`.  done: sequences that need nothing more than
    this step.  keep: (node, output): hidden states to store in the tree.  unshared: sequences
    with tokens that enter the tree when the step is over.  ahead: sequences that the next step,
    prepared before this one was over, has rows of.  void: sequences whose token, drawn here
    before the one before it was known, is not to be taken: other tokens come first.
    """

    __slots__ = ("_flats", "_ids", "_known", "_positions", "_slots", "ahead", "cached",
                 "decoded", "done", "keep", "members", "number", "outputs", "prefilled",
                 "recomputed", "recomputed_tokens", "rows", "samples", "scores", "size",
                 "unshared", "void")

    def __init__(self, number: int, capacity: int) -> None:
        self.number = number
        self.size = 0
        self.rows: list[Row] = []
        self.outputs: list[int] = []
        self.cached: list[Any] = []
        self.samples: list[tuple[Sequence, int]] = []
        self.scores: list[tuple[Sequence, int, int]] = []
        self.done: list[Sequence] = []
        self.members: dict[Sequence, None] = {}  # all that the failure of this step concerns
        self.keep: list[tuple[Node, int]] = []
        self.unshared: list[Sequence] = []
        self.ahead: set[Sequence] = set()
        self.void: set[Sequence] = set()
        self.recomputed: dict[int, int] = {}  # slot -> flat index, of rows that only recompute
        self.decoded = self.prefilled = self.recomputed_tokens = 0
        self._ids = np.empty(capacity, dtype=np.int64)
        self._positions = np.empty(capacity, dtype=np.int64)
        self._slots = np.empty(capacity, dtype=np.int64)
        self._flats: dict[int, int] = {}
        self._known: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        """Whether running the step changes anything."""
        return bool(self.size or self.samples or self.done)

    def add_decodes(self, sequences: list[Sequence], slots: np.ndarray) -> None:
        """First rows of a step: the last token of each sequence, into these slots; outputs
        and samples 0, 1, ... are theirs."""
        n = len(sequences)
        self._ids[:n] = [seq.ids[-1] for seq in sequences]
        self._positions[:n] = [seq.pos for seq in sequences]
        self._slots[:n] = slots
        self.rows.extend([Row(i, 1, seq.own_slot(slot), seq) for i, (seq, slot)
                          in enumerate(zip(sequences, slots.tolist(), strict=True))])
        self.outputs = list(range(n))
        self.samples.extend(zip(sequences, self.outputs, strict=True))
        self.members.update(dict.fromkeys(sequences))
        self.size = self.decoded = n

    def add_run(self, seq: Sequence, slots: np.ndarray) -> None:
        """The next tokens of a running sequence, forced ones too, into these slots: a row, and a
        sample if they are all of them."""
        at = seq.pos
        end = at + len(slots)
        flat = self.add_row(seq, seq.ids[at:end], at, slots, seq.own_slots(slots))
        self.decoded += at <= seq.sampled_at < end
        self.members[seq] = None
        if end == len(seq.ids):
            self.samples.append((seq, self.output(flat + len(slots) - 1)))

    def add_row(self, seq: Sequence, ids: array[int], position: int, slots: np.ndarray,
                context: np.ndarray) -> int:
        """Append tokens of a sequence from `position` on; the flat index of the first."""
        start, n = self.size, len(slots)
        end = self.size = start + n
        self._ids[start:end] = ids
        self._positions[start:end] = np.arange(position, position + n)
        self._slots[start:end] = slots
        self.rows.append(Row(start, n, context, seq))
        return start

    def output(self, flat: int) -> int:
        """The output that holds the hidden state of the token at this flat index."""
        k = self._flats.get(flat)
        if k is None:
            k = self._flats[flat] = len(self.outputs)
            self.outputs.append(flat)
        return k

    def known(self, hidden: Any) -> int:
        """The name of a hidden state that is there already."""
        k = self._known.get(id(hidden))
        if k is None:
            self.cached.append(hidden)
            k = self._known[id(hidden)] = -len(self.cached)
        return k

    def batch(self) -> Batch:
        n = self.size
        return Batch(self._ids[:n], self._positions[:n], self._slots[:n], self.rows,
                     np.array(self.outputs, dtype=np.int64))
