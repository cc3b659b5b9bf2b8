"""Images of requests, as the model takes them.

They come as base64, as data: URLs, or, where that is allowed, as URLs to be fetched; never as
paths.  One is decoded at a time, in a thread of its own; what all requests hold is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sglc.errors import ImageError
from sglc.runtime.vision.opening import FORMATS
from sglc.serve.fetching import Fetcher
from sglc.serve.problems import Problem
from sglc.serve.room import Room
from sglc.serve.waiting import within
from sglc.tokens.images import PlacedImage, place_image


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Of one image: pixels when it is decoded; of a request: how many; of all requests: bytes
    that the model reads.  fetch: whether URLs are fetched, with what limits."""

    pixels: int = 1 << 24
    images: int = 256
    bytes: int = 512 << 20
    fetch: bool = False
    fetch_bytes: int = 16 << 20
    fetch_seconds: float = 10.0
    fetch_ports: frozenset[int] = frozenset((80, 443))


class Unreadable(Problem):
    """What was given is no image; `error` says why."""

    def __init__(self, error: ImageError, param: str) -> None:
        d = error.diagnostic
        super().__init__(400, f"{d.code} {d.what}" + (f" ({d.why})" if d.why else ""),
                         param=param, code="invalid_image")
        self.error = error


class Pictures:
    """Takes in images."""

    def __init__(self, tokenizer: Any, limits: PictureLimits) -> None:
        self._tokenizer = tokenizer
        self.limits = limits
        self._room = Room(limits.bytes, "bytes of images", 413, "body_too_large")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="sglc-pictures")
        self._fetcher: Fetcher | None = None  # made on the event loop

    @property
    def has_vision(self) -> bool:
        return getattr(self._tokenizer, "images", None) is not None

    async def place(self, sources: Sequence[str], *, param: str, deadline: float,
                    until: ExitStack, positions: int | None = None) -> list[PlacedImage]:
        """The images of base64 texts, data: URLs and URLs, in order.

        positions: how many all may take, None for any number.  They count as held until `until`
        is closed.  Raises Problem 400, 413, 429 or 504.
        """
        if not sources:
            return []
        if not self.has_vision:
            raise Problem(400, "images are not taken: the model has no vision", param=param,
                          code="unsupported")
        if len(sources) > self.limits.images:
            raise Problem(400, f"a request has at most {self.limits.images} images, not "
                          f"{len(sources)}", param=param, code="invalid_value")
        out: list[PlacedImage] = []
        known: dict[str, PlacedImage] = {}
        left = positions
        for source in sources:
            placed = known.get(source)
            if placed is None:
                placed = known[source] = await self._one(source, param, deadline)
                self._room.hold(placed.data.n_bytes, until)
            if left is not None:
                left -= placed.count
                if left < 0:
                    raise Problem(400, f"the images take more than the {positions} positions that "
                                  "the model has", param=param, code="context_length_exceeded")
            out.append(placed)
        return out

    async def _one(self, source: str, param: str, deadline: float) -> PlacedImage:
        try:
            found: str | bytes = source
            with ExitStack() as waiting:  # files that are fetched faster than one decodes them
                if source[:8].lower().startswith(("http://", "https://")):
                    found = await within(self._fetched(source), deadline - monotonic())
                    self._room.hold(len(found), waiting)
                return await within(asyncio.get_running_loop().run_in_executor(
                    self._decoding, self._decoded, found), deadline - monotonic())
        except asyncio.TimeoutError:
            raise Problem(504, "the request took longer than it may",
                          code="deadline_exceeded") from None
        except ImageError as error:
            raise Unreadable(error, param) from None
        except Problem as problem:
            problem.param = param
            raise

    async def _fetched(self, url: str) -> bytes:
        if not self.limits.fetch:
            raise Problem(400, "images are not fetched here: send a data: URL with base64",
                          code="invalid_image")
        if self._fetcher is None:
            self._fetcher = Fetcher(self.limits.fetch_bytes, self.limits.fetch_seconds,
                                    ports=self.limits.fetch_ports)
        return await self._fetcher.fetch(url)

    def _decoded(self, source: str | bytes) -> PlacedImage:
        """In the thread that decodes.  The size is looked at before there are any pixels."""
        from PIL import Image

        data = source if isinstance(source, bytes) else file_in(source)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                wide, high = image.size
        except Exception:  # placing it says what is wrong
            wide = high = 0
        if wide * high > self.limits.pixels:
            raise Problem(400, f"an image has {wide} x {high} pixels; at most "
                          f"{self.limits.pixels} are taken", code="invalid_image")
        return place_image(self._tokenizer, data)

    async def stop(self) -> None:
        """Stop fetching."""
        if self._fetcher is not None:
            await self._fetcher.close()

    def close(self) -> None:
        """Stop decoding."""
        self._decoding.shutdown(wait=False, cancel_futures=True)


def file_in(text: str) -> bytes:
    """The bytes of base64, or of a data: URL with base64.  Raises Problem 400."""
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise Problem(400, "a data: URL of an image must have base64", code="invalid_image")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, "an image must be base64 or a data: URL with base64, and this is "
                      "neither; files are not read, and other URLs not fetched",
                      code="invalid_image") from None
