"""Sampling keys: order-free randomness (design section 3).

A gen's key depends on the run's seed, the row of the batch, the gen's path in its program and
the sample's number, never on when or beside what it runs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

_M64 = (1 << 64) - 1


def sampling_key(seed: int, row: int, path: Sequence[int], sample: int = 0) -> int:
    """64-bit key of sample `sample` of the gen at `path`: blake2b over little-endian int64s."""
    data = struct.pack(f"<QQI{len(path)}q", seed & _M64, row, sample, *path)
    return int.from_bytes(blake2b(data, digest_size=8, person=b"sglc-run").digest(), "little")


def seeded_key(seed: int, sample: int = 0) -> int:
    """64-bit key of a `gen(seed=...)`: the same wherever it stands."""
    data = struct.pack("<QI", seed & _M64, sample)
    return int.from_bytes(blake2b(data, digest_size=8, person=b"sglc-gen").digest(), "little")


def fresh_seed() -> int:
    """A new 63-bit run seed from the operating system."""
    import os

    return int.from_bytes(os.urandom(8), "little") >> 1
