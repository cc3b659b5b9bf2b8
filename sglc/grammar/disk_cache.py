"""Arrays kept in files between processes: compiled automata and tables derived from Unicode.

A file is found by the hash of its key, which names everything that its content depends on.  It is
written beside and renamed, so readers see whole files only; what is damaged is taken for missing.
Nothing here fails for lack of a disk.  Knows arrays, not what they mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

FORMAT = 1
"""Of the files; part of every key."""

MAX_BYTES = 256 << 20
_MAGIC = b"sglcarr\n"
_ALIGN = 64
_KINDS = frozenset({"|b1", "|u1", "<i2", "<u2", "<i4", "<i8"})
_CHECK_EVERY = 32  # stores between two looks at the total size

Arrays = dict[str, np.ndarray]


class DiskCache:
    """A folder of at most about `most` bytes, the least recently used files going first; without
    a folder nothing is found or kept."""

    def __init__(self, folder: Path | None, most: int = MAX_BYTES) -> None:
        self.folder = folder
        self.most = most
        self._stores = 0

    @classmethod
    def of_environment(cls) -> DiskCache:
        """In `$SGLC_GRAMMAR_CACHE` (none if that is "off"), else `$SGLC_CACHE/grammar`, else
        `~/.cache/sglc/grammar`."""
        own = os.environ.get("SGLC_GRAMMAR_CACHE")
        if own == "off":
            return cls(None)
        _code_stamp()  # now, with the tokenizer's index, rather than with the first constraint
        if own:
            return cls(Path(own).expanduser())
        root = os.environ.get("SGLC_CACHE") or "~/.cache/sglc"
        return cls(Path(root).expanduser() / "grammar")

    def path(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        named = f"{FORMAT} {_code_stamp()} {key}".encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(named).hexdigest()
        return self.folder / f"{digest[:40]}.arrays"

    def load(self, key: str) -> Arrays | None:
        """The arrays stored for `key`, read-only; None if there are none, or damaged ones."""
        path = self.path(key)
        if path is None:
            return None
        try:
            data = path.read_bytes()
            found = _unpacked(data)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def store(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays for `key`; does nothing where that cannot be done."""
        path = self.path(key)
        if path is None:
            return
        data = _packed(arrays)
        if len(data) > self.most // 4:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new",
                                             delete=False) as file:
                file.write(data)
            os.replace(file.name, path)
        except OSError:
            return
        if self._stores % _CHECK_EVERY == 0:
            self.shrink()
        self._stores += 1

    def shrink(self) -> None:
        """Removes what was not used for longest, if the files are too large together."""
        if self.folder is None:
            return
        files: list[tuple[float, int, str]] = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    about = entry.stat()
                    files.append((about.st_mtime, about.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        if total <= self.most:
            return
        for _, size, name in sorted(files):
            if total <= self.most * 3 // 4:
                break
            with suppress(OSError):
                os.unlink(name)
                total -= size


@lru_cache(maxsize=1)
def _code_stamp() -> str:
    """Changes with this package's code: what other code has made is not found."""
    found = []
    with suppress(OSError), os.scandir(Path(__file__).parent) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                about = entry.stat()
                found.append((entry.name, about.st_size, about.st_mtime_ns))
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()[:16]


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Magic, SHA-256 of the rest, length of the head, head (JSON), arrays."""
    fields, chunks, at = [], [], 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        if array.dtype.str not in _KINDS:
            raise ValueError(f"no arrays of {array.dtype} are kept")
        raw = array.tobytes()
        fields.append([name, array.dtype.str, list(array.shape), at])
        padding = -len(raw) % _ALIGN
        chunks += [raw, bytes(padding)]
        at += len(raw) + padding
    head = json.dumps(fields).encode()
    head += b" " * (-(len(head) + len(_MAGIC) + 32 + 8) % _ALIGN)
    body = b"".join([len(head).to_bytes(8, "little"), head, *chunks])
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpacked(data: bytes) -> Arrays:
    """Raises ValueError, KeyError or TypeError for what `_packed` did not make."""
    start = len(_MAGIC) + 32
    body = memoryview(data)[start:]
    if data[:len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC):start]:
        raise ValueError("damaged")
    size = int.from_bytes(body[:8], "little")
    fields = json.loads(bytes(body[8:8 + size]))
    body = body[8 + size:]
    out: Arrays = {}
    for name, kind, shape, at in fields:
        if kind not in _KINDS:
            raise ValueError(kind)
        count = int(np.prod(shape, dtype=np.int64))
        out[name] = np.frombuffer(body, dtype=kind, count=count, offset=at).reshape(shape)
    return out
