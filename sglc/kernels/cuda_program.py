"""Kernels in CUDA C++: compiled by NVRTC when first needed, kept beside Triton's, launched.

It knows nothing of what a kernel does.  The package `cuda-bindings`, which PyTorch's CUDA builds
bring along from 2.10 on, does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_TYPES = {torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}


@cache
def available() -> bool:
    """Whether kernels can be compiled and launched here."""
    try:
        from cuda.bindings import driver, nvrtc

        return driver.cuInit(0)[0].value == 0 and nvrtc.nvrtcVersion()[0].value == 0
    except (ImportError, RuntimeError):  # no package, or no library behind it
        return False


class CudaKernel:
    """A kernel of `source` on one device.

    cluster: blocks of a cluster, as the source says.  memory: bytes of shared memory that each
    asks for at launch.
    Raises RuntimeError if the source does not compile, with the compiler's log.
    """

    def __init__(self, source: str, name: str, threads: int, cluster: int, memory: int,
                 device: int) -> None:
        from cuda.bindings import driver

        self._driver, self._threads, self._cluster, self._memory = driver, threads, cluster, memory
        self._device = device
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # the device's context is this thread's now
            self._module = _done(driver.cuModuleLoadData(_cubin(source, device)))
            self._kernel = _done(driver.cuModuleGetFunction(self._module, name.encode()))
            attribute = driver.CUfunction_attribute
            _done(driver.cuFuncSetAttribute(
                self._kernel, attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, memory))

    def clusters(self) -> int:
        """How many clusters the device runs at a time."""
        config = self._config(self._cluster, 0, False)
        attribute = self._driver.CUlaunchAttribute()
        attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        attribute.value.clusterDim.x = self._cluster
        attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1
        config.attrs, config.numAttrs = [attribute], 1
        return int(_done(self._driver.cuOccupancyMaxActiveClusters(self._kernel, config)))

    def launch(self, blocks: int, arguments: Sequence[Any], overlap: bool) -> None:
        """On the device's current stream.

        arguments: tensors or None for pointers, ints, floats, and `matrix_map`s.  overlap: it may
        start before the kernel before it has ended (see `sglc.kernels.overlap`).
        """
        values = [argument_value(argument) for argument in arguments]
        at = (ctypes.c_void_p * len(values))(*(address for address, _ in values))
        stream = torch.cuda.current_stream(self._device).cuda_stream
        _done(self._driver.cuLaunchKernelEx(self._config(blocks, stream, overlap), self._kernel,
                                            ctypes.addressof(at), 0))

    def _config(self, blocks: int, stream: int, overlap: bool) -> Any:
        config = self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = self._threads, 1, 1
        config.sharedMemBytes, config.hStream = self._memory, stream
        if overlap:
            attribute = self._driver.CUlaunchAttribute()
            attribute.id = self._driver.CUlaunchAttributeID. \
                CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
        return config


def matrix_map(matrix: Tensor, box: tuple[int, int]) -> Any:
    """How the copy engine reads boxes of (rows, columns) from a contiguous matrix in 16 bits.

    A box lies in shared memory in the 128-byte swizzle; what is outside of the matrix is zero.
    box: at most 256 rows, and 64 columns.  The address of the matrix and the bytes of its rows
    have to be multiples of 16.
    """
    from cuda.bindings import driver

    rows, columns = matrix.shape
    return _done(driver.cuTensorMapEncodeTiled(
        getattr(driver.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{_TYPES[matrix.dtype]}"), 2,
        matrix.data_ptr(), [driver.cuuint64_t(columns), driver.cuuint64_t(rows)],
        [driver.cuuint64_t(columns * 2)],
        [driver.cuuint32_t(box[1]), driver.cuuint32_t(box[0])],
        [driver.cuuint32_t(1), driver.cuuint32_t(1)],
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE))


def argument_value(argument: Any) -> tuple[int, Any]:
    """The address of an argument's value, and what keeps it alive."""
    if argument is None or isinstance(argument, Tensor):
        kept: Any = ctypes.c_void_p(None if argument is None else argument.data_ptr())
    elif isinstance(argument, (int, float)):
        kept = (ctypes.c_int if isinstance(argument, int) else ctypes.c_float)(argument)
    else:
        return int(argument.getPtr()), argument
    return ctypes.addressof(kept), kept


def _cubin(source: str, device: int) -> bytes:
    """Machine code, from the cache if it was compiled before."""
    from cuda.bindings import nvrtc
    from triton.runtime.cache import get_cache_manager

    major, minor = torch.cuda.get_device_capability(device)
    target = f"--gpu-architecture=sm_{major}{minor}{'a' if major >= 9 else ''}"
    version = _done(nvrtc.nvrtcVersion())
    key = hashlib.sha256("\0".join((source, target, str(version))).encode()).hexdigest()
    kept = get_cache_manager(key)
    path = kept.get_file("kernel.cubin")
    if path is not None:
        with open(path, "rb") as file:
            return file.read()
    program = _done(nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, None, None))
    compiled = nvrtc.nvrtcCompileProgram(program, 1, [target.encode()])
    if compiled[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _done(nvrtc.nvrtcGetProgramLogSize(program))
        _done(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"a CUDA kernel does not compile: {log.decode()}")
    cubin = b" " * _done(nvrtc.nvrtcGetCUBINSize(program))
    _done(nvrtc.nvrtcGetCUBIN(program, cubin))
    _done(nvrtc.nvrtcDestroyProgram(program))
    kept.put(cubin, "kernel.cubin", binary=True)
    return cubin


def _done(result: tuple[Any, ...]) -> Any:
    """What a call of the driver or the compiler gave, if it went well."""
    if result[0].value:
        raise RuntimeError(f"{result[0]!r}")
    return result[1] if len(result) == 2 else result[1:]
