"""Ranks on several GPUs: NCCL through its C interface, which PyTorch brings along.

Not through `torch.distributed`, whose one default group may be the user's, and whose watchdog ends
the process when a rank is lost; here the communicator is aborted and the process goes on.
Operations may be captured in CUDA graphs.  API: https://docs.nvidia.com/deeplearning/nccl/
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from sglc.errors import EngineError, ModelError

_SUM, _BYTES = 0, 0
_KINDS = {torch.float16: 6, torch.float32: 7, torch.bfloat16: 9}
_ABORT_SECONDS = 1.0  # how long an abort waits, for operations being launched and for its end


class _UniqueId(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_byte * 128),)


_COMM, _STREAM, _POINTER = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
_SIGNATURES = {
    "ncclGetUniqueId": (ctypes.POINTER(_UniqueId),),
    "ncclCommInitRank": (ctypes.POINTER(_COMM), ctypes.c_int, _UniqueId, ctypes.c_int),
    "ncclAllReduce": (_POINTER, _POINTER, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, _COMM,
                      _STREAM),
    "ncclBroadcast": (_POINTER, _POINTER, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, _COMM,
                      _STREAM),
    "ncclCommAbort": (_COMM,),
}


def quiet_environment() -> dict[str, str]:
    """Settings that are made where the user has made none: no NVLink multicast, which a program
    that ends in the middle of it can leave the GPUs unusable with; no registration of the memory
    in captured graphs, which are many and whose messages are small."""
    return {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
            "NCCL_GRAPH_REGISTER": "0"}


class NcclGroup:
    """One rank on one GPU (see `parallel.group.Link`)."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size = rank, size
        self._device = device
        self._lock = threading.Lock()
        self._comm: ctypes.c_void_p | None = None
        for name, value in quiet_environment().items():
            os.environ.setdefault(name, value)
        self._nccl = _library()

    def address(self) -> bytes:
        made = _UniqueId()
        self._check(self._nccl.ncclGetUniqueId(ctypes.byref(made)), "making an address")
        return bytes(made)

    def connect(self, address: bytes) -> None:
        comm = ctypes.c_void_p()
        with torch.cuda.device(self._device):
            self._check(self._nccl.ncclCommInitRank(
                ctypes.byref(comm), self.size, _UniqueId.from_buffer_copy(address), self.rank),
                "connecting the GPUs")
            self._comm = comm
            self.all_reduce(torch.zeros(1, device=self._device))  # takes NCCL's memory
            torch.cuda.synchronize(self._device)

    def all_reduce(self, x: Tensor) -> Tensor:
        if x.numel():
            self._run("ncclAllReduce", x, x.numel(), _KINDS[x.dtype], _SUM)
        return x

    def broadcast(self, x: Tensor) -> Tensor:
        if x.numel():
            self._run("ncclBroadcast", x, x.numel() * x.element_size(), _BYTES, 0)
        return x

    def abort(self) -> None:
        """End operations that run and wait for a rank that is not there; later ones raise."""
        got = self._lock.acquire(timeout=_ABORT_SECONDS)
        comm, self._comm = self._comm, None
        if got:
            self._lock.release()
        if comm is None:
            return
        # NCCL tells its kernels to end, then waits until no captured graph is left that has some.
        ending = threading.Thread(target=self._nccl.ncclCommAbort, args=(comm,), daemon=True)
        with contextlib.suppress(RuntimeError):  # at the interpreter's end there are no threads
            ending.start()
            ending.join(_ABORT_SECONDS)

    def close(self) -> None:
        """No operation may be running.  The other ranks are not waited for."""
        self.abort()

    def _run(self, name: str, x: Tensor, count: int, kind: int, argument: int) -> None:
        assert x.is_contiguous()
        stream = torch.cuda.current_stream(self._device).cuda_stream
        with self._lock:
            if self._comm is None:
                raise EngineError("SGLC503", "the GPUs are not connected any more")
            self._check(getattr(self._nccl, name)(
                x.data_ptr(), x.data_ptr(), count, kind, argument, self._comm, stream), name)

    def _check(self, status: int, what: str) -> None:
        if status:
            text = self._nccl.ncclGetErrorString(status).decode("utf-8", "replace")
            raise EngineError("SGLC503", f"NCCL failed in {what}: {text}")


def _library() -> ctypes.CDLL:
    """NCCL, the one that PyTorch has loaded if it has one."""
    names = ["libnccl.so.2"]
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        names += map(str, sorted(Path(folder).glob("nccl/lib/libnccl.so.2")))
    for name in names:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        found.ncclGetErrorString.restype = ctypes.c_char_p
        found.ncclGetErrorString.argtypes = (ctypes.c_int,)
        for function, arguments in _SIGNATURES.items():
            getattr(found, function).restype = ctypes.c_int
            getattr(found, function).argtypes = arguments
        return found
    raise ModelError("SGLC504", "a model on several GPUs needs NCCL",
                     why="libnccl.so.2 was not found",
                     fixes=("install PyTorch with CUDA from PyPI", "use tp=1"))
