"""Which ids stand for which images, for one model; from any thread.

Two images have one key only if all their pixels are equal: a key begins as a part of a hash, and
where two images would have the same, the second takes the next one.  For this, hashes are kept,
of so many images that the KV of one that is forgotten is long gone; tiles only of images that are
in use, or were lately.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

from sglc.errors import ImageError
from sglc.runtime.vision.opening import pixels, source_of
from sglc.runtime.vision.shape import VisionShape
from sglc.runtime.vision.tiles import most_positions, tiles_of
from sglc.tokens.images import MOST_POSITIONS, PlacedImage, after, key_of

_KEPT_BYTES = 128 << 20  # of tiles
_KEPT_HASHES = 1 << 17  # about 150 bytes each; no KV pool holds as many images


class Places:
    """Places images for models of one shape (an `ImagePlaces`).

    prepared: images whose tiles were made, over time.
    """

    def __init__(self, shape: VisionShape) -> None:
        self.shape = shape
        self.most = most_positions(shape)
        self.prepared = 0
        self._lock = threading.Lock()
        self._digests: OrderedDict[int, bytes] = OrderedDict()  # by key; the last used one last
        self._live: WeakValueDictionary[int, PlacedImage] = WeakValueDictionary()
        # By the hash of a file's bytes, or of pixels; the last used one last.
        self._recent: OrderedDict[bytes, PlacedImage] = OrderedDict()
        self._recent_bytes = 0

    def place(self, source: Any) -> PlacedImage:
        """The image of a path, bytes, a data: URL or a PIL image.  Raises ImageError SGLC510.

        A file is read anew each time, and decoded unless it was lately.
        """
        name, found = source_of(source)
        file = hashlib.blake2b(found, digest_size=32, person=b"file").digest() if isinstance(
            found, bytes) else None
        if file is not None and (known := self._lately(file)) is not None:
            return known
        image = pixels(name, found)
        shown = hashlib.blake2b(digest_size=32, person=b"pixels")
        shown.update(b"%d %d " % image.size)
        shown.update(image.tobytes())
        digest = shown.digest()
        placed = self._lately(digest)
        if placed is None:
            tiles = tiles_of(image, self.shape)
            if len(tiles.rows) > MOST_POSITIONS:
                raise ImageError("SGLC510", f"the image cannot be used: {name}",
                                 why=f"it would take {len(tiles.rows):,} positions")
            placed = self._entered(digest, tiles)
        for known_by in (digest, file):
            if known_by is not None:
                self._keep(known_by, placed)
        return placed

    def find(self, key: int) -> PlacedImage | None:
        """The image of a key, while anything uses it."""
        with self._lock:
            return self._live.get(key)

    def _lately(self, known_by: bytes) -> PlacedImage | None:
        with self._lock:
            placed = self._recent.get(known_by)
            if placed is not None:
                self._recent.move_to_end(known_by)
            return placed

    def _entered(self, digest: bytes, tiles: Any) -> PlacedImage:
        with self._lock:
            self.prepared += 1
            key = key_of(digest)
            while self._digests.setdefault(key, digest) != digest:
                key = after(key)
            placed = self._live.get(key)
            if placed is None:
                placed = PlacedImage(key, len(tiles.rows), digest, tiles)
                self._live[key] = placed
            self._digests.move_to_end(key)
            for _ in range(8):  # those in use stay; more than a few at a time are looked at later
                if len(self._digests) <= _KEPT_HASHES:
                    break
                oldest = next(iter(self._digests))
                if oldest in self._live:
                    self._digests.move_to_end(oldest)
                else:
                    del self._digests[oldest]
            return placed

    def _keep(self, known_by: bytes, placed: PlacedImage) -> None:
        size = placed.data.n_bytes
        with self._lock:
            if known_by not in self._recent:
                self._recent_bytes += size
            self._recent[known_by] = placed
            self._recent.move_to_end(known_by)
            while self._recent_bytes > _KEPT_BYTES and len(self._recent) > 2:
                _, old = self._recent.popitem(last=False)
                self._recent_bytes -= old.data.n_bytes
