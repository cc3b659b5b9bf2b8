"""One model step as data: which tokens, where their keys and values go, and what they attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class PagedSequence(Protocol):
    """Who owns a row's page table, so that a device can keep it from step to step.

    known: so many positions' slots have been given to the device, and are as they were.
    finished: whether it will have no more rows.
    """

    known: int
    finished: bool


@dataclass(slots=True)
class Row:
    """`n` consecutive new tokens of one sequence.

    start: index of its first token in the batch's flat arrays.
    context: int64 slots of positions 0 .. last new position, the new tokens' own slots included
        (shape: position of the last new token + 1).
    owner: whose page table `context` is (see `PagedSequence`); None if nobody keeps it.
    """

    start: int
    n: int
    context: np.ndarray
    owner: PagedSequence | None = None


@dataclass(slots=True)
class Batch:
    """A step over T new tokens of R rows.

    ids, positions, slots: int64 arrays of shape (T,): token id, its position in its sequence,
        and the KV slot that its key and value are written to.
    outputs: int64 array of shape (K,): indices into T whose hidden state is returned.

    A layer stores all keys and values of the step before it attends, so rows may read slots
    that other rows of the same step write (shared prefixes, tries).
    """

    ids: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    rows: list[Row]
    outputs: np.ndarray


class Runner(Protocol):
    """A model behind the engine: real weights, or the hash model."""

    vocab_size: int
    context_length: int
    bytes_per_token: int  # of KV

    def allocate(self, slots: int) -> None:
        """Make room for this many KV slots (token positions)."""

    def forward(self, batch: Batch) -> Any:
        """Write the step's KV; hidden states of `batch.outputs`, a tensor of shape (K, H).

        Rows of the result are independent tensors' worth of data: they may be kept.
        """

    def logits(self, hidden: Any) -> Any:
        """float32 logits, shape (K, vocab_size), of hidden states of shape (K, H)."""

    def close(self) -> None: ...
