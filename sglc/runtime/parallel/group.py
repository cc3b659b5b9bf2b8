"""What ranks compute together: sums, and copies of rank 0's tensors.

`Alone` is a model in one process; `GlooGroup` connects processes of one machine over its loopback
interface, for tensors on the CPU.  For GPUs there is `runtime/cuda/nccl.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

_STEP_SECONDS = 600  # how long one sum may wait for the slowest rank


class Group(Protocol):
    """The ranks of one model.  Both operations work in place on contiguous tensors, in stream
    order on a GPU, and have to come in the same order in all ranks."""

    rank: int
    size: int

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over all ranks, the same in each."""

    def broadcast(self, x: Tensor) -> Tensor:
        """Rank 0's tensor."""


class Link(Group, Protocol):
    """A group that has to be connected, with an address that rank 0 makes up."""

    def address(self) -> bytes: ...

    def connect(self, address: bytes) -> None: ...

    def abort(self) -> None:
        """Let operations that wait for other ranks end; from any thread."""

    def close(self) -> None: ...


class Alone:
    """The group of a model in one process."""

    rank, size = 0, 1

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def broadcast(self, x: Tensor) -> Tensor:
        return x


class GlooGroup:
    """Ranks on the CPU.  When one of them ends, operations of the others raise RuntimeError."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._ranks: Any = None
        self._folder: Path | None = None

    def address(self) -> bytes:
        """The file by which ranks find each other."""
        self._folder = Path(tempfile.mkdtemp(prefix="sglc-"))
        return str(self._folder / "ranks").encode()

    def connect(self, address: bytes) -> None:
        from torch.distributed import FileStore, ProcessGroupGloo

        # Not torch's one default group, which may be the user's.
        options = ProcessGroupGloo._Options()
        options._devices = [ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = timedelta(seconds=_STEP_SECONDS)
        store = FileStore(address.decode(), self.size)
        self._ranks = ProcessGroupGloo(store, self.rank, self.size, options)
        self._ranks.barrier().wait()  # all have found each other
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def all_reduce(self, x: Tensor) -> Tensor:
        self._ranks.allreduce([x]).wait()
        return x

    def broadcast(self, x: Tensor) -> Tensor:
        self._ranks.broadcast(x, 0).wait()
        return x

    def abort(self) -> None:
        """Nothing to do: connections to a process end with it."""

    def close(self) -> None:
        self._ranks = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
