"""What rank 0 and its workers tell each other (see `channel.py`), and steps as arrays."""

from __future__ import annotations

import numpy as np

from sglc.runtime.batch import Batch, Row

JOB, CONNECT, ALLOCATE, ROOM, STEP, CLOSE, DONE, FAILED = range(8)
"""JOB: a JSON text, see `worker.py`.  CONNECT: a group's address.  ALLOCATE: KV slots.  ROOM: a
share of the memory, in millionths, answered with KV slots.  STEP: a step; there is no answer.
CLOSE: the end.  DONE: an answer, maybe with numbers.  FAILED: code, what and why of an error."""


def pack_batch(batch: Batch) -> list[np.ndarray]:
    """A step as int64 arrays: tokens' positions and slots, the outputs, and of the rows starts,
    tokens, lengths and contexts, one after the other.  Only rank 0 needs ids."""
    rows = batch.rows
    contexts = [row.context for row in rows] or [np.empty(0, np.int64)]
    return [batch.positions, batch.slots, batch.outputs,
            np.array([row.start for row in rows], np.int64),
            np.array([row.n for row in rows], np.int64),
            np.array([len(row.context) for row in rows], np.int64), np.concatenate(contexts)]


def unpack_batch(arrays: list[np.ndarray]) -> Batch:
    """The step that `pack_batch` has packed, with zeros for ids."""
    positions, slots, outputs, starts, tokens, lengths, flat = arrays
    contexts = np.split(flat, lengths.cumsum()[:-1])
    rows = [Row(start, n, context) for start, n, context in zip(
        starts.tolist(), tokens.tolist(), contexts, strict=False)]
    return Batch(np.zeros_like(positions), positions, slots, rows, outputs)
