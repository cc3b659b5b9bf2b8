"""From pixels to the tiles that a tower looks at, and where their features stand in a prompt.

As LLaVA (Liu et al., 2023) and LLaVA-NeXT do it: the image in a square, or small and again in
tiles of the resolution that fits it best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sglc.runtime.vision.shape import VisionShape

if TYPE_CHECKING:
    from PIL.Image import Image

_LONGEST = 32  # how many times as long as high an image may be that is resized whole


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """pixels: uint8 (tiles, size, size, 3).  rows: int64 (positions,), which feature stands
    where: they are counted tile by tile, and one more is the newline."""

    pixels: np.ndarray
    rows: np.ndarray

    @property
    def n_bytes(self) -> int:
        return int(self.pixels.nbytes + self.rows.nbytes)


def tiles_of(image: Image, shape: VisionShape) -> Tiles:
    """The tiles of an RGB image."""
    if shape.fit != "anyres":
        fitted = {"crop": _crop, "pad": _pad, "stretch": _stretch}[shape.fit](image, shape)
        return Tiles(np.asarray(fitted)[None].copy(), np.arange(shape.per_tile))
    size = shape.size
    grid = best_grid((image.height, image.width), shape.grids)
    spread = np.asarray(_spread(image, grid))
    down, across = grid[0] // size, grid[1] // size
    cut = spread.reshape(down, size, across, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    pixels = np.concatenate((np.asarray(_stretch(image, shape))[None], cut))
    return Tiles(pixels, _rows(image, shape, down, across))


def most_positions(shape: VisionShape) -> int:
    """The most positions that an image can take."""
    if shape.fit != "anyres":
        return shape.per_tile
    n = shape.across
    sizes = [(h // shape.size * n, w // shape.size * n) for h, w in shape.grids]
    return shape.per_tile + max([h * (w + shape.has_newline) for h, w in sizes])


def best_grid(size: tuple[int, int], grids: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The (height, width) that keeps most of an image's pixels, and among these wastes least."""
    def rank(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[1] / size[1], grid[0] / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return kept, kept - grid[0] * grid[1]

    return max(grids, key=rank)  # the first one of equals


def _rows(image: Image, shape: VisionShape, down: int, across: int) -> np.ndarray:
    n, per_tile = shape.across, shape.per_tile
    whole = np.arange(per_tile)
    tiles = np.arange(1, 1 + down * across)[:, None] * per_tile + whole
    if shape.merge == "flat":
        return np.concatenate((whole, tiles.reshape(-1)))
    grid = tiles.reshape(down, across, n, n).swapaxes(1, 2).reshape(down * n, across * n)
    if shape.merge == "spatial_unpad":
        grid = _unpadded(grid, image.height, image.width)
        newline = np.full((len(grid), 1), (1 + down * across) * per_tile)
        grid = np.concatenate((grid, newline), axis=1)
    return np.concatenate((whole, grid.reshape(-1)))


def _unpadded(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part of the grid that shows the image."""
    down, across = grid.shape
    if width / height > across / down:
        padding = (down - int(round(height * (across / width), 7))) // 2
        return grid[padding:down - padding]
    padding = (across - int(round(width * (down / height), 7))) // 2
    return grid[:, padding:across - padding]


def _spread(image: Image, grid: tuple[int, int]) -> Image:
    """The image as large as it fits into (height, width), black around it."""
    height, width = grid
    scale_w, scale_h = width / image.width, height / image.height
    if scale_w < scale_h:
        w, h = width, min(math.ceil(image.height * scale_w), height)
    else:
        w, h = min(math.ceil(image.width * scale_h), width), height
    out = _new(width, height, (0, 0, 0))
    out.paste(_resize(image, w, h), ((width - w) // 2, (height - h) // 2))
    return out


def _pad(image: Image, shape: VisionShape) -> Image:
    side = max(image.size)
    if image.width != image.height:
        square = _new(side, side, tuple([int(x * 255) for x in shape.mean]))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    return _stretch(image, shape)


def _crop(image: Image, shape: VisionShape) -> Image:
    """The shorter side as long as a tile, and the middle of the longer one."""
    size, short = shape.size, min(image.size)
    if max(image.size) > _LONGEST * short:  # what is far from the middle does not matter
        w, h = (min(n, _LONGEST * short) for n in image.size)
        left, top = (image.width - w) // 2, (image.height - h) // 2
        image = image.crop((left, top, left + w, top + h))
    w, h = (size if n == short else int(size * n / short) for n in image.size)
    image = _resize(image, w, h)
    left, top = (w - size) // 2, (h - size) // 2
    return image.crop((left, top, left + size, top + size))


def _stretch(image: Image, shape: VisionShape) -> Image:
    return _resize(image, shape.size, shape.size)


def _resize(image: Image, width: int, height: int) -> Image:
    from PIL.Image import Resampling

    return image.resize((width, height), Resampling.BICUBIC)


def _new(width: int, height: int, color: tuple[int, ...]) -> Image:
    from PIL import Image

    return Image.new("RGB", (width, height), color)
