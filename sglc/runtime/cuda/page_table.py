"""Page tables of sequences on the device, and the same on the host.

Each sequence has a place of its own, of the size of the longest.  A step changes few entries: its
new tokens', which the step itself writes, and those of prefixes that were found in the cache,
which are uploaded here.  Steps, tokens and attention are not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sglc.runtime.batch import PagedSequence, Row


class PageTable:
    """Room for `places` sequences of at most `stride` tokens.

    host, device: int32, flat; the slot of position p of a sequence at offset o is table[o + p].
    The last entry, number `spare`, may hold anything.  version: changes whenever a place gets
    another owner, or slots that new tokens did not bring.  pieces: what the last `offsets` has
    uploaded, (place, slots).
    """

    def __init__(self, places: int, stride: int, device: torch.device) -> None:
        self.stride = stride
        self.spare = places * stride
        # Memory of numpy's zeros is not taken until it is written.
        self.host = np.zeros(self.spare + 1, np.int32)
        self.device = torch.zeros(self.spare + 1, dtype=torch.int32, device=device)
        self._free = list(range(places - 1, -1, -1))
        self._place: dict[PagedSequence, int] = {}
        self._used = np.zeros(places, np.int64)
        self._owner: list[PagedSequence | None] = [None] * places
        self._step = 0
        self.version = 0
        self.pieces: list[tuple[int, np.ndarray]] = []

    @staticmethod
    def nbytes(places: int, stride: int) -> int:
        """Device memory that a table takes."""
        return 4 * (places * stride + 1)

    def offsets(self, rows: Sequence[Row]) -> np.ndarray:
        """Where each row's sequence begins, int64.  Both tables then have all slots of the rows
        but those of their new tokens, which the caller sets."""
        self._step += 1
        stride, places = self.stride, self._place
        out = np.empty(len(rows), np.int64)
        pieces: list[tuple[int, np.ndarray]] = []
        lent: list[int] = []
        for i, row in enumerate(rows):
            owner, context = row.owner, row.context
            end = len(context)
            start = end - row.n
            if owner is None:
                place = self._take(None)
                lent.append(place)
                known = 0
            else:
                place = places.get(owner, -1)
                if place < 0:
                    place = places[owner] = self._take(owner)
                    owner.known = 0
                known = owner.known
                if known < end:
                    owner.known = end
            self._used[place] = self._step
            at = place * stride
            out[i] = at
            if known < start:
                pieces.append((at + known, context[known:start]))
        self._free.extend(lent)
        self.pieces = pieces
        if pieces:
            self.upload(pieces)
        return out

    def _take(self, owner: PagedSequence | None) -> int:
        self.version += 1
        if not self._free:
            self._reclaim()
        place = self._free.pop()
        self._owner[place] = owner
        return place

    def _reclaim(self) -> None:
        """Take places back from who is finished; else from who was here least recently.  Those
        of this step stay."""
        old = [(o, p) for o, p in self._place.items() if self._used[p] < self._step]
        places = [p for o, p in old if o.finished]
        if not places:
            places = sorted([p for _, p in old], key=lambda p: int(self._used[p]))
            places = places[:max(1, len(self._used) // 8)]
        for place in places:
            owner = self._owner[place]
            self._owner[place] = None
            if owner is not None:
                del self._place[owner]
            self._free.append(place)

    def upload(self, pieces: list[tuple[int, np.ndarray]]) -> None:
        """Set entries from given places on, in both tables."""
        self.version += 1
        for at, piece in pieces:
            self.host[at:at + len(piece)] = piece
        device = self.device.device
        if device.type == "cpu":
            for at, piece in pieces:
                self.device[at:at + len(piece)] = torch.from_numpy(self.host[at:at + len(piece)])
            return
        # One copy for all: the slots, then where each piece goes and how long it is.
        sizes = np.array([len(piece) for _, piece in pieces], np.int64)
        total, n = int(sizes.sum()), len(pieces)
        staged = torch.empty(total + 2 * n, dtype=torch.int32, pin_memory=True)
        view = staged.numpy()
        np.concatenate([self.host[at:at + len(piece)] for at, piece in pieces], out=view[:total])
        begins = np.array([at for at, _ in pieces], np.int64)
        view[total:total + n] = begins - (sizes.cumsum() - sizes)
        view[total + n:] = sizes
        there = staged.to(device, non_blocking=True)
        shift, count = there[total:total + n], there[total + n:]
        to = torch.repeat_interleave(shift, count, output_size=total)
        to += torch.arange(total, dtype=torch.int32, device=device)
        self.device.index_copy_(0, to.long(), there[:total])
