"""A model without weights whose output is a hash of the KV it is made to read.

Its pool stores (token id, position) per slot.  The hidden state of a token is a 64-bit,
order-sensitive hash over the slots reached through the row's page table: of the stored id, the
stored position and the index in the context.  A wrong page, a stale slot, a wrong cut or order
changes the output, so engines can be compared exactly.  It never sees a request.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from sglc.runtime.batch import Batch
from sglc.tokens.tokenizer import Tokenizer

_ID, _POSITION, _INDEX = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_MIX1, _MIX2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_TURNS = 1 << 16  # rotations of each noise table
_EOS_ONE_IN = 12


class HashRunner:
    """A `Runner` for tests, planning and dry runs.

    Logits are the sum of two noise tables, rotated by parts of the hash, plus a bias: single
    printable ASCII characters, space and newline are likely, and EOS is all but certain for one
    hash in twelve and unlikely otherwise.  `seed` picks the tables.
    """

    bytes_per_token = 16

    def __init__(self, vocab_size: int, tokenizer: Tokenizer | None = None, *,
                 context_length: int = 1 << 16, seed: int = 0,
                 eos_ids: Iterable[int] | None = None) -> None:
        self.vocab_size = vocab_size
        self.context_length = context_length
        if eos_ids is None:
            eos_ids = tokenizer.eos_ids if tokenizer is not None else ()
        self._eos = np.array(sorted(i for i in eos_ids if i < vocab_size), dtype=np.int64)
        noise = np.random.Generator(np.random.Philox(seed))
        self._tables = [
            np.lib.stride_tricks.sliding_window_view(
                noise.standard_normal(_TURNS + vocab_size - 1, dtype=np.float32), vocab_size)
            for _ in range(2)]
        self._bias = np.zeros(vocab_size, dtype=np.float32)
        if tokenizer is not None:
            self._bias += _favour(tokenizer, vocab_size)
        self._bias[self._eos] = -12.0
        self._ids = np.empty(0, dtype=np.uint64)
        self._positions = np.empty(0, dtype=np.uint64)

    def allocate(self, slots: int) -> None:
        self._ids = np.zeros(slots, dtype=np.uint64)
        self._positions = np.zeros(slots, dtype=np.uint64)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Store the step's tokens; the hashes of `batch.outputs`, int64, shape (K, 1)."""
        self._ids[batch.slots] = batch.ids
        self._positions[batch.slots] = batch.positions
        outputs = batch.outputs
        if not len(outputs):
            return torch.empty((0, 1), dtype=torch.int64)
        rows = batch.rows
        sizes = np.array([len(row.context) for row in rows])
        starts = np.cumsum(sizes) - sizes
        slots = np.concatenate([row.context for row in rows])
        index = (np.arange(len(slots)) - np.repeat(starts, sizes)).view(np.uint64)
        x = (self._ids[slots] + np.uint64(1)) * np.uint64(_ID)
        x += (self._positions[slots] + np.uint64(1)) * np.uint64(_POSITION)
        x += (index + np.uint64(1)) * np.uint64(_INDEX)
        x ^= x >> np.uint64(31)
        x *= np.uint64(_MIX1)
        x ^= x >> np.uint64(29)
        totals = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(x)])  # wraps
        # Of each new token: its row, and where its context ends in `slots`.
        first = np.array([row.start for row in rows])
        counts = np.array([row.n for row in rows])
        owner = np.searchsorted(first, outputs, side="right") - 1
        end = starts[owner] + sizes[owner] - counts[owner] + outputs - first[owner] + 1
        h = totals[end] - totals[starts[owner]]
        h ^= h >> np.uint64(33)
        h *= np.uint64(_MIX2)
        h ^= h >> np.uint64(33)
        return torch.from_numpy(h.view(np.int64)[:, None])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        h = hidden[:, 0].numpy().view(np.uint64)
        out = self._tables[0][(h & np.uint64(_TURNS - 1)).astype(np.int64)]
        out += self._tables[1][(h >> np.uint64(20) & np.uint64(_TURNS - 1)).astype(np.int64)]
        out += self._bias
        ends = np.flatnonzero((h >> np.uint64(40)) % np.uint64(_EOS_ONE_IN) == 0)
        if len(ends) and len(self._eos):
            out[ends[:, None], self._eos] += 40.0
        return torch.from_numpy(out)

    def logits_of(self, hidden: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
        """`logits(hidden)[:, ids]`."""
        h = hidden[:, :1].numpy().view(np.uint64)
        out = self._tables[0][(h & np.uint64(_TURNS - 1)).astype(np.int64), ids]
        out += self._tables[1][(h >> np.uint64(20) & np.uint64(_TURNS - 1)).astype(np.int64), ids]
        out += self._bias[ids]
        ends = np.flatnonzero((h[:, 0] >> np.uint64(40)) % np.uint64(_EOS_ONE_IN) == 0)
        out[ends[:, None], np.flatnonzero(np.isin(ids, self._eos))] += 40.0
        return torch.from_numpy(out)

    def close(self) -> None:
        self.allocate(0)


def _favour(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """A bias that lifts single common characters above the best of all other tokens' noise
    about three times in four, whatever the size of the vocabulary; space, newline and lower
    case are the most common, so that stops and patterns hit."""
    table = tokenizer.byte_table[:vocab_size]
    more = {b" ": 2.2, b"\n": 1.6}
    common = [i for i, piece in enumerate(table)
              if len(piece) == 1 and (32 <= piece[0] < 127 or piece == b"\n")]
    bias = np.zeros(vocab_size, dtype=np.float32)
    if common:
        # The best of n draws of variance 2 is about 2 sqrt(ln n).
        bias[common] = 1.0 + 2.0 * (np.sqrt(np.log(vocab_size)) - np.sqrt(np.log(len(common))))
        bias[common] += [more.get(table[i], 0.6 * table[i].islower()) for i in common]
    return bias
