"""Images in prompts: which ids stand for them, and who decides that.

An image takes as many positions as it has features.  Their ids lie above every vocabulary and are
a function of what the image shows and of the position within it, so prompts share KV across an
image exactly where they hold the same one.  How images are read, and what features are, is not
known here.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import Any, Protocol

from sglc.errors import ImageError, LanguageError

FIRST_ID = 1 << 62
"""No vocabulary goes this far; every id of an image does."""
INDEX_BITS = 15
MOST_POSITIONS = 1 << INDEX_BITS  # of one image
USUAL = 576  # positions of an image, where nothing better is known: LLaVA 1.5's
_KEY_BITS = 62 - INDEX_BITS


class PlacedImage:
    """An image as one model takes it.  Two of them are the same image only if they are one object
    or have one key.

    key: which image, among those of the model; ids: `(key, index)` packed, one a position.
    data: what the model computes features from.  digest: of what the image shows.
    """

    __slots__ = ("__weakref__", "count", "data", "digest", "ids", "key")

    def __init__(self, key: int, count: int, digest: bytes, data: Any) -> None:
        first = FIRST_ID | key << INDEX_BITS
        self.key = key
        self.count = count
        self.digest = digest
        self.data = data
        self.ids = array("q", range(first, first + count))


class ImagePlaces(Protocol):
    """What a tokenizer of a model with vision has as `images`."""

    most: int  # positions of one image

    def place(self, source: Any) -> PlacedImage:
        """The image of a path, bytes, a data: URL or a PIL image.  Raises ImageError SGLC510."""


def key_of(digest: bytes) -> int:
    """The key of an image before others' are looked at: the first bits of a hash."""
    return int.from_bytes(digest[:8], "big") >> (64 - _KEY_BITS)


def after(key: int) -> int:
    """The key to take where one is another image's."""
    return (key + 1) % (1 << _KEY_BITS)


def place_image(tokenizer: Any, source: Any) -> PlacedImage:
    """The image as the tokenizer's model takes it.  An ImageError stands for an image that could
    not be read, and is raised anew.

    Raises LanguageError SGLC008 if the model has no vision, ImageError SGLC510 if this is no
    image that can be read.
    """
    if isinstance(source, PlacedImage):
        return source
    if isinstance(source, ImageError):
        d = source.diagnostic
        raise ImageError(d.code, d.what, why=d.why, fixes=d.fixes)
    places: ImagePlaces | None = getattr(tokenizer, "images", None)
    if places is None:
        raise LanguageError("SGLC008", "an image is given to a model without vision",
                            why="its configuration has no vision tower",
                            fixes=("use a model of the LLaVA or Yi-VL family",))
    return places.place(source)


def covered(images: Iterable[PlacedImage], ids: Iterable[int]) -> bool:
    """Whether every one of these ids is a position of one of the images."""
    counts = {image.key: image.count for image in images}
    mask = MOST_POSITIONS - 1
    return all((i & mask) < counts.get((i ^ FIRST_ID) >> INDEX_BITS, 0) for i in ids)


def in_vocabulary(token: int) -> int:
    """The id itself, or for an image's some id of the vocabulary."""
    return token if token < FIRST_ID else 0


_MARK = re.compile(r"<[^<>]*>")


def image_text(template: Any) -> tuple[str, str, str]:
    """(text before, what the image is in texts, text after) an image, as a template has it.

    Templates of SGLang's kind say it in `image_token`; for others it is as LLaVA's have it.
    """
    token = getattr(getattr(template, "template", template), "image_token", "<image>\n")
    mark = _MARK.search(token)
    if mark is None:
        return token, "", ""
    return token[:mark.start()], mark.group(), token[mark.end():]
