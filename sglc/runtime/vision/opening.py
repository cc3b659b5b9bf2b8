"""From what a user calls an image to its pixels.

Whatever is wrong with it is an ImageError (SGLC510) that names it, at once: sizes are checked
before pixels are decoded, a file is read only if it is one, and nothing is fetched from a network.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sglc.errors import ImageError, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_BYTES = 64 << 20
MOST_PIXELS = 50_000_000
MOST_SIDE = 1 << 15
_USUAL_SIDE = 1 << 13  # larger ones are reduced to this first: padding squares them


def source_of(source: Any) -> tuple[str, bytes | Image]:
    """What to call an image in errors, and its file's bytes, or the PIL image that it is."""
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _short(source), _from_url(source)
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        _fail(_short(source), "images are not fetched from a network",
              "fetch it first, and give its bytes or the path of a file")
    if isinstance(source, (str, os.PathLike)):
        return _short(os.fspath(source)), _from_file(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes", _sized(f"{len(source)} bytes", bytes(source))
    if isinstance(source, _pillow().Image):
        return f"a PIL image of {source.width} x {source.height}", source
    _fail(f"a value of type {type(source).__name__}", "it is no path, bytes or PIL image",
          "give a path, the bytes of a file, a data: URL or a PIL image")


def file_of(source: Any) -> bytes:
    """The bytes of the file that an image is: a path's, the given ones, a data: URL's, or a PIL
    image's as PNG.  Raises ImageError SGLC510."""
    _, found = source_of(source)
    if isinstance(found, bytes):
        return found
    rgb = found.convert("RGB")  # without what else a file would say of it, such as a rotation
    out = io.BytesIO()
    _pillow().frombytes("RGB", rgb.size, rgb.tobytes()).save(out, "PNG", compress_level=1)
    return out.getvalue()


def pixels(name: str, found: bytes | Image) -> Image:
    """The image in RGB, upright, as its first frame; sides of 8192 at most.

    Alpha is dropped, as LLaVA's own code does.
    """
    pillow = _pillow()
    try:
        image = found
        if isinstance(image, bytes):
            image = pillow.open(io.BytesIO(image), formats=FORMATS)
        _check_size(name, image)
        if isinstance(found, bytes):
            image.load()
            from PIL import ImageOps

            image = ImageOps.exif_transpose(image)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except Exception as e:  # decoders raise whatever they like at damaged files
        what = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
        if isinstance(e, pillow.DecompressionBombError):
            what = f"it has too many pixels: {e}"
        elif isinstance(e, _unidentified()):
            what = f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        _fail(name, what[:200])
    longest = max(rgb.size)
    if longest > _USUAL_SIDE:
        w, h = (max(1, round(n * _USUAL_SIDE / longest)) for n in rgb.size)
        rgb = rgb.resize((w, h), pillow.Resampling.BICUBIC)
    return rgb


def _check_size(name: str, image: Image) -> None:
    w, h = image.size
    if w < 1 or h < 1:
        _fail(name, f"its size is {w} x {h}")
    if w * h > MOST_PIXELS or max(w, h) > MOST_SIDE:
        _fail(name, f"its size is {w} x {h}; at most {MOST_PIXELS:,} pixels and sides of "
                    f"{MOST_SIDE:,} are taken", "reduce it first")


def _from_url(url: str) -> bytes:
    name = _short(url)
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        _fail(name, "it is no data: URL with base64", "write data:image/png;base64,...")
    if len(data) > MOST_BYTES * 4 // 3 + 4:
        _fail(name, f"more than {MOST_BYTES >> 20} MiB are not taken")
    try:
        return _sized(name, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        _fail(name, "its base64 is damaged")


def _from_file(path: str | os.PathLike[str]) -> bytes:
    name = _short(os.fspath(path))
    try:
        place = Path(path).expanduser()
        if not place.is_file():
            _fail(name, "it is no file" if place.exists() else "there is no such file")
        with place.open("rb") as file:
            return _sized(name, file.read(MOST_BYTES + 1))
    except (OSError, ValueError, RuntimeError) as e:
        if isinstance(e, ImageError):
            raise
        _fail(name, (e.strerror if isinstance(e, OSError) else None) or str(e)[:200])


def _sized(name: str, data: bytes) -> bytes:
    if not data:
        _fail(name, "it is empty")
    if len(data) > MOST_BYTES:
        _fail(name, f"more than {MOST_BYTES >> 20} MiB are not taken")
    return data


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as e:
        raise ModelError("SGLC504", "reading images needs Pillow", why=str(e),
                         fixes=("pip install 'sglc[vision]'",)) from None
    return Image


def _unidentified() -> type[Exception]:
    from PIL import UnidentifiedImageError

    return UnidentifiedImageError


def _short(name: str | bytes) -> str:
    text = os.fsdecode(name)
    if len(text) <= 200:
        return text
    return f"{text[:60]}...{text[-60:]} ({len(text)} characters)"  # a path's end is its name


def _fail(name: str, why: str, *fixes: str) -> NoReturn:
    raise ImageError("SGLC510", f"the image cannot be used: {name}", why=why, fixes=fixes)
