"""Attention of wide units on Hopper (compute capability 9.0), in CUDA C++: its launch.

What `units_kernel` in Triton does for them; both read the same work list and may serve one step.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sglc.kernels.cuda_program import CudaKernel, available
from sglc.kernels.hopper_source import KINDS, HopperSource, Product

_MEMORY = 226 * 1024  # that blocks of keys and values may have


class HopperAttentionForm(NamedTuple):
    """kind: of queries, keys and values.  keys: of a block, 64 or 128.  in_turn: whether the two
    warpgroups ask for products in turn.  announced: whether copies say when they are there, or
    who copies waits for them."""

    kind: torch.dtype
    dim: int
    kv_heads: int
    group: int
    keys: int = 128
    in_turn: bool = True
    announced: bool = True

    @property
    def exists(self) -> bool:
        """Whether the kernel can be compiled for it."""
        return self.kind in KINDS and self.dim in (64, 128)

    @property
    def stages(self) -> int:
        """Blocks of keys or values in shared memory."""
        return min(8, _MEMORY // self.block)

    @property
    def block(self) -> int:
        """Bytes of one."""
        return self.keys * self.dim * 2


def hopper_attention_source(form: HopperAttentionForm) -> HopperSource:
    """The kernel `hopper_attention`."""
    return HopperSource("hopper_attention.cu", form.kind, {
        "DIM": form.dim, "HEADS": form.kv_heads, "GROUP": form.group, "KEYS": form.keys,
        "STAGES": form.stages, "IN_TURN": int(form.in_turn), "ANNOUNCED": int(form.announced),
    }, (Product("score", form.keys, True), Product("weigh", form.dim, True, True)))


@cache
def _kernel(form: HopperAttentionForm, device: int) -> tuple[CudaKernel, int]:
    """The kernel, and how many of its blocks run at a time."""
    kernel = CudaKernel(hopper_attention_source(form).cuda(), "hopper_attention", 384, 1,
                        form.stages * form.block, device)
    return kernel, kernel.clusters()


def takes_attention(form: HopperAttentionForm, device: torch.device) -> str:
    """Why `hopper_attention` cannot attend on this device; empty if it can, and `form`, if it
    exists, is compiled."""
    if device.type != "cuda" or torch.version.hip is not None \
            or torch.cuda.get_device_capability(device) != (9, 0):
        return "it is for GPUs of compute capability 9.0"
    if not available():
        return "the package cuda-bindings, which compiles it, is not installed"
    try:
        if form.exists:
            _kernel(form, device.index or 0)
    except RuntimeError as error:  # a compiler, say, that is newer than the driver
        return str(error)[:400]
    return ""


def hopper_attention(form: HopperAttentionForm, q: Tensor, pool: Tensor, table: Tensor, out: Tensor,
                     partial: Tensor, sums: Tensor, units: Tensor, entries: tuple[Tensor, ...],
                     count: int, scale: float, overlap: bool = True) -> None:
    """The first `count` of `units`, longest first, and those of no queries last; all other
    arguments as for `units_kernel`, contiguous, in 16 bits where they are queries, keys, values or
    results.

    entries: token, part, high.  scale: of the scores.
    """
    kernel, places = _kernel(form, q.device.index or 0)
    kernel.launch(min(count * form.kv_heads, places), (
        q, pool, table, out, partial, sums, units, *entries, count, scale * 1.4426950408889634),
        overlap)
