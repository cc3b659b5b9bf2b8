"""`CudaKernel` for the CPU: the same source, with `hopper_ptx.h` for `hopper_ptx.cuh`."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from torch import Tensor

from sglc.kernels import hopper_attention_cuda, hopper_gemm_cuda
from sglc.kernels.cuda_program import argument_value
from sglc.kernels.hopper_attention_cuda import HopperAttentionForm
from sglc.kernels.hopper_gemm_cuda import HopperGemmConfig, HopperGemmForm
from sglc.kernels.hopper_source import HopperSource, Product, text

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no g++")


def some(cases: Iterable[Any], every: int) -> list[Any]:
    """One of so many cases for the default run, which compiles for two seconds each; the others are
    slow."""
    return [case if i % every == 0 else pytest.param(
        *(case if type(case) is tuple else (case,)), marks=pytest.mark.slow)
        for i, case in enumerate(cases)]


class KernelFailed(AssertionError):
    """A kernel that waits for ever, reads what is not there yet, or breaks another rule."""


class CpuKernel:
    """A kernel, run block by block with a random order of its threads.

    Takes what `sglc.kernels.cuda_program.CudaKernel` takes; tensors are on the CPU.
    changes: of the kernel's text, what is to be replaced and by what.
    """

    def __init__(self, source: HopperSource, name: str, threads: int, cluster: int,
                 changes: Sequence[tuple[str, str]] = ()) -> None:
        self._run = _library(_source(source, name, changes)).run
        self._run.restype = ctypes.c_char_p
        self._threads, self._cluster, self.seed = threads, cluster, 1

    def launch(self, blocks: int, arguments: Sequence[Any], overlap: bool) -> None:
        values = [argument_value(argument) for argument in arguments]
        at = (ctypes.c_void_p * len(values))(*(address for address, _ in values))
        self.seed += 1
        error = self._run(at, blocks, self._cluster, self._threads, self.seed)
        if error:
            raise KernelFailed(error.decode())


class CpuMap(ctypes.Structure):
    """`matrix_map`, as `hopper_ptx.h` reads it."""

    _fields_ = (("data", ctypes.c_void_p), ("rows", ctypes.c_uint64), ("columns", ctypes.c_uint64),
                ("box_rows", ctypes.c_uint64), ("box_columns", ctypes.c_uint64),
                ("rest", ctypes.c_char * 88))

    def getPtr(self) -> int:
        return ctypes.addressof(self)


def cpu_map(matrix: Tensor, box: tuple[int, int]) -> CpuMap:
    assert matrix.is_contiguous() and matrix.element_size() == 2
    return CpuMap(matrix.data_ptr(), *matrix.shape, *box)


def gemm_on_cpu(monkeypatch: pytest.MonkeyPatch, changes: Sequence[tuple[str, str]] = ()) -> None:
    """`hopper_gemm` takes tensors on the CPU; with a configuration."""
    @cache
    def made(form: HopperGemmForm, config: HopperGemmConfig, device: int) -> tuple[CpuKernel, int]:
        return CpuKernel(hopper_gemm_cuda.hopper_gemm_source(form, config), "hopper_gemm", 384,
                         config.across * config.parts, changes), 3

    monkeypatch.setattr(hopper_gemm_cuda, "_kernel", made)
    monkeypatch.setattr(hopper_gemm_cuda, "matrix_map", cpu_map)


def attention_on_cpu(monkeypatch: pytest.MonkeyPatch,
                     changes: Sequence[tuple[str, str]] = ()) -> None:
    """`hopper_attention` takes tensors on the CPU."""
    @cache
    def made(form: HopperAttentionForm, device: int) -> tuple[CpuKernel, int]:
        return CpuKernel(hopper_attention_cuda.hopper_attention_source(form), "hopper_attention",
                         384, 1, changes), 3

    monkeypatch.setattr(hopper_attention_cuda, "_kernel", made)


def _source(source: HopperSource, name: str, changes: Sequence[tuple[str, str]]) -> str:
    kernel = text(source.file)
    for old, new in changes:
        assert kernel.count(old) == 1, old
        kernel = kernel.replace(old, new)
    return "\n".join((
        '#include "cuda.h"', source.defines, text("hopper.cuh"), '#include "hopper_ptx.h"',
        *map(_product, source.products), kernel,
        "thread_local __align__(1024) unsigned char memory[machine::MEMORY];",
        "static unsigned char* its_memory() { return memory; }",
        'extern "C" const char* run(void** given, int blocks, int size, int threads, int seed) {',
        "  static std::string error;",
        f"  error = machine::launch({name}, given, blocks, size, threads, seed, its_memory);",
        "  return error.empty() ? nullptr : error.c_str();",
        "}", ""))


def _product(product: Product) -> str:
    a = "0, a" if product.registers else "a, nullptr"
    order = "true" if product.terms_first else "false"
    return f"{product.signature} {{ ask({product.columns}, {order}, d, {a}, b, more); }}\n"


@cache
def _library(source: str) -> ctypes.CDLL:
    with TemporaryDirectory(prefix="kernel") as folder:
        path, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        path.write_text(source)
        done = subprocess.run(
            [str(COMPILER), "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread",
             "-Wno-unknown-pragmas", f"-I{HERE}", "-o", str(library), str(path)],
            capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        return ctypes.CDLL(str(library))
