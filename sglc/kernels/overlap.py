"""Overlap of a kernel's start with the end of the one before it (programmatic dependent launch).

A kernel that takes part says when the next may start, and waits for the one before it where it
first touches anything but weights.  So the gaps between kernels are filled with reading weights.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def let_next_start(OVERLAP: tl.constexpr):
    """The next kernel's programs may take what room is left once all of this one are here."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_inputs(OVERLAP: tl.constexpr):
    """What other kernels write may be read, and anything written, only after this."""
    if OVERLAP:
        tl.extra.cuda.gdc_wait()


@cache
def _options(device: int) -> dict[str, Any]:
    if torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"OVERLAP": True, "launch_pdl": True}
    return {"OVERLAP": False}


def overlap(x: Tensor) -> dict[str, Any]:
    """Launch options for a kernel that calls `wait_for_inputs(OVERLAP)`, on the device of x."""
    return _options(x.device.index or 0) if x.is_cuda else {"OVERLAP": False}
