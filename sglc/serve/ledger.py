"""What a batch has come to so far, in a file that outlives the death of its process at any moment.

One line a row, appended when the row has ended: a checksum, a space, JSON.  A line that is torn or
damaged does not count, and its row runs again.  A row counts once: with its first line.  The first
line of the file says which batch it is of.

`kill -9` loses no line that was written; a failure of the machine loses what was not synced yet
(see `SYNC`).
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from sglc.errors import LanguageError

SYNC = {"row": 0.0, "second": 1.0, "never": float("inf")}
"""How many seconds of rows a failure of the machine may cost."""

_FORM = "sglc batch ledger 1"


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows that ended well, and that failed."""

    good: int
    failed: int


class Ledger:
    """The ledger of one batch; one process at a time has it open (LanguageError SGLC001).

    job: what must be equal for a batch to be gone on with; more is kept with it from the first
    time (`header`).  rows: how many there are.  sync: a key of `SYNC`.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], rows: int, *,
                 more: Mapping[str, Any] | None = None, sync: str = "second") -> None:
        self.path = path
        self.rows = rows
        self.damaged = 0  # lines that were found torn or damaged
        self._where: dict[int, tuple[int, int, bool]] = {}  # row -> offset, length, good
        self._period = SYNC[sync]
        self._synced = monotonic()
        self.finished: Counts | None = None
        self._file: BinaryIO = open(path, "a+b", buffering=0)
        try:
            _lock(self._file, path)
            self.header = self._read({**job, "rows": rows}, dict(more or {}))
        except BaseException:
            self._file.close()
            raise

    def _read(self, job: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        self._file.seek(0)
        at = end = 0
        whole = False
        header: dict[str, Any] | None = None
        with open(self.path, "rb") as file:
            for line in file:
                at += len(line)
                whole = whole or line.endswith(b"\n")
                value = _value(line)
                if value is None:
                    self.damaged += 1
                    continue
                end = at
                if header is None:
                    header = self._begun(value, job)
                elif "done" in value:
                    self.finished = Counts(*value["done"])
                else:
                    self._where.setdefault(value["row"], (at - len(line), len(line),
                                                          value["good"]))
        if header is None:
            if whole:  # a first line that is only torn has no end
                raise LanguageError("SGLC001", f"{self.path} is no ledger of a batch",
                                    fixes=("give another -o",))
            header = {"form": _FORM, "job": job, **more}
            self._file.truncate(0)
            self._append(header)
            self._flush()
            _sync_folder(self.path)
        else:
            self._file.truncate(end)  # new lines must not be joined to a torn one
        return header

    def _begun(self, value: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
        if value.get("form") != _FORM:
            raise LanguageError("SGLC001", f"{self.path} is no ledger of a batch",
                                fixes=("give another -o",))
        other = sorted(k for k in {*job, *value["job"]} if job.get(k) != value["job"].get(k))
        if other:
            raise LanguageError(
                "SGLC001", f"{self.path} belongs to another batch",
                why=f"different from this one: {', '.join(other)}",
                fixes=("give another -o", "remove it, with what it holds"))
        return value

    # -- rows -----------------------------------------------------------------------------
    def __contains__(self, row: int) -> bool:
        return row in self._where

    @property
    def counts(self) -> Counts:
        if self.finished is not None:
            return self.finished
        good = sum(g for _, _, g in self._where.values())
        return Counts(good, len(self._where) - good)

    def add(self, row: int, good: bool, value: Any) -> None:
        """Note how a row ended; `value` is plain data.  A row that is there already is left."""
        if row in self._where:
            return
        line = _line({"row": row, "good": good, "value": value})
        at = self._file.seek(0, os.SEEK_END)
        self._write(line)
        self._where[row] = (at, len(line), good)
        if monotonic() - self._synced >= self._period:
            self._flush()

    def values(self, good: bool) -> Iterator[Any]:
        """What was noted of the rows that ended well, or that failed, by their numbers."""
        with open(self.path, "rb") as file:
            for _, (at, length, kind) in sorted(self._where.items()):
                if kind is good:
                    file.seek(at)
                    value = _value(file.read(length))
                    if value is None:
                        raise LanguageError("SGLC001", f"{self.path} was changed meanwhile")
                    yield value["value"]

    def finish(self, good: Path, failed: Path) -> None:
        """Write the results, and keep only the fact that they are.  Every row must have ended.

        Each file appears whole or not at all; a death in between is made up for the next time.
        """
        counts = self.counts
        assert counts.good + counts.failed == self.rows
        _write_whole(good, (_json(v) for v in self.values(True)))
        if counts.failed:
            _write_whole(failed, (_json(v) for v in self.values(False)))
        else:
            failed.unlink(missing_ok=True)
        lines = [_line(self.header), _line({"done": [counts.good, counts.failed]})]
        _write_whole(self.path, iter(lines))
        self.finished = counts

    def close(self) -> None:
        """Sync and let go."""
        if not self._file.closed:
            self._flush()
            self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def _append(self, value: dict[str, Any]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._write(_line(value))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view):]

    def _flush(self) -> None:
        if self._period != SYNC["never"]:
            os.fsync(self._file.fileno())
        self._synced = monotonic()


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value).encode() + b"\n"


def _line(value: Any) -> bytes:
    data = json.dumps(value).encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def _value(line: bytes) -> dict[str, Any] | None:
    """The JSON of a whole line; None for what is not one."""
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    data = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(data):
        return None
    found: dict[str, Any] = json.loads(data)
    return found


def _write_whole(path: Path, lines: Iterator[bytes]) -> None:
    """Put a file in place when all of it is on the disk."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        for line in lines:
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    """Make a new name in a folder last, where the system can."""
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a Unix
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise LanguageError("SGLC001", f"another process is at work on {path}") from None
