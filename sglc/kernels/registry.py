"""Chooses, once, the implementation of every operation.

An operation has one reference in plain torch and maybe faster forms.  Implementations are named
as "module:function" and imported only when chosen.  All are pure functions of tensors (`store_kv`
writes into the tensor it is given); none knows an engine object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sglc.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sglc.kernels.fsm import FsmTables
    from sglc.kernels.int4 import Int4Matrix
    from sglc.kernels.residual import Residual
    from sglc.kernels.row_masks import MaskRows

# operation -> {backend: implementation}, best first; "torch" is the reference and always there.
IMPLEMENTATIONS: dict[str, dict[str, str]] = {
    "pack_linear": {"onednn": "sglc.kernels.linear:pack_onednn",
                    "torch": "sglc.kernels.linear:pack_torch"},
    "linear": {"onednn": "sglc.kernels.linear:linear_onednn",
               "torch": "sglc.kernels.linear:linear_torch"},
    "rms_norm": {"torch": "sglc.kernels.rms_norm:rms_norm_torch"},
    "rope_angles": {"torch": "sglc.kernels.rope:rope_angles_torch"},
    "rope": {"torch": "sglc.kernels.rope:rope_torch"},
    "store_kv": {"torch": "sglc.kernels.store_kv:store_kv_torch"},
    "attention": {"torch": "sglc.kernels.attention:attention_torch"},
    "silu_mul": {"torch": "sglc.kernels.silu_mul:silu_mul_torch"},
}

# On the CPU with weights of 8 bits.
INT8_IMPLEMENTATIONS: dict[str, str] = {
    "pack_linear": "sglc.kernels.int8:pack_int8", "linear": "sglc.kernels.int8:linear_int8",
}

# The same for a GPU, where operations are wider so that fewer kernels run.
DEVICE_IMPLEMENTATIONS: dict[str, dict[str, str]] = {
    "pack": {"triton": "sglc.kernels.fused_linear_triton:pack_triton",
             "torch": "sglc.kernels.linear:pack_torch"},
    "pack_int4": {"triton": "sglc.kernels.int4_triton:pack_int4_triton",
                  "torch": "sglc.kernels.int4:pack_int4_torch"},
    **{op: {"triton": f"sglc.kernels.{op}_triton:{op}_triton",
            "torch": f"sglc.kernels.{op}:{op}_torch"}
       for op in ("fused_linear", "rms_norm", "silu_mul", "gelu_mul", "embed", "rope_linear",
                  "experts", "few_logits", "row_masks", "sample", "follow_tokens", "logprobs")},
    "add_linear": {"triton": "sglc.kernels.fused_linear_triton:add_linear_triton",
                   "torch": "sglc.kernels.fused_linear:add_linear_torch"},
    "rms_norm_add": {"triton": "sglc.kernels.rms_norm_triton:rms_norm_add_triton",
                     "torch": "sglc.kernels.rms_norm:rms_norm_add_torch"},
}

# Forms that are taken only where kernels="flashinfer" is asked for.
FLASHINFER_IMPLEMENTATIONS: dict[str, str] = {
    op: f"sglc.kernels.flashinfer_ops:{op}_flashinfer"
    for op in ("rms_norm", "silu_mul")
}

# Forms that are taken only where kernels="cuda" is asked for.
CUDA_IMPLEMENTATIONS: dict[str, str] = {
    "rope_linear": "sglc.kernels.rope_linear_cuda:rope_linear_cuda",
}

# Operations whose result for a row must not depend on the rows beside it, where others' may.
FIXED_IMPLEMENTATIONS: dict[str, str] = {
    "pack_int4": "sglc.kernels.int4:pack_int4_never",  # fixed products are of dense weights
    "fused_linear": "sglc.kernels.fixed_linear_triton:fixed_linear",
    "add_linear": "sglc.kernels.fixed_linear_triton:add_linear_fixed",
    "rope_linear": "sglc.kernels.fixed_linear_triton:rope_linear_fixed",
    "experts": "sglc.kernels.experts_triton:experts_fixed",
    "logprobs": "sglc.kernels.fixed_linear_triton:logprobs_fixed",
}

# What may be asked for on a GPU (see `resolve_device`).
DEVICE_CHOICES = ("auto", "torch", "triton", "flashinfer", "cuda")

# backend -> a function of the weights' type that says whether it works here.
AVAILABLE: dict[str, str] = {"onednn": "sglc.kernels.linear:onednn_available"}


@dataclass(frozen=True, slots=True)
class Kernels:
    """One implementation of each operation; `backends` says which."""

    pack_linear: Callable[[Tensor], Any]
    linear: Callable[[Tensor, Any], Tensor]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    rope_angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rope: Callable[[Tensor, Tensor, Tensor], Tensor]
    store_kv: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    attention: Callable[..., Tensor]
    silu_mul: Callable[[Tensor], Tensor]
    backends: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DeviceKernels:
    """One implementation of each operation of a GPU step but attention.

    The signature of each is that of its reference, `sglc.kernels.<operation>`.
    long_rows: who attends for rows of many tokens: "flashinfer", "auto" (it where that is known
    to be faster) or "units" (who attends for all others).  wide_units: who attends for units of
    many queries, "triton" or "cuda".
    """

    pack: Callable[[Tensor], Any]
    pack_int4: Callable[[Int4Matrix], Any]  # for `fused_linear`; None if it cannot be
    fused_linear: Callable[..., Tensor]
    add_linear: Callable[..., Residual]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    rms_norm_add: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    silu_mul: Callable[[Tensor], Tensor]
    gelu_mul: Callable[[Tensor], Tensor]
    embed: Callable[..., Tensor]
    rope_linear: Callable[..., Tensor]
    experts: Callable[..., Tensor]
    few_logits: Callable[[Tensor, Tensor, Tensor], Tensor]
    row_masks: Callable[[MaskRows], Tensor]
    sample: Callable[..., Tensor]
    follow_tokens: Callable[[FsmTables, Tensor, Tensor, Tensor], Tensor]
    logprobs: Callable[..., tuple[Tensor, Tensor, Tensor]]
    long_rows: str
    wide_units: str
    backends: tuple[tuple[str, str], ...]


def load_function(spec: str) -> Any:
    """The function that "module:function" names."""
    module, _, name = spec.partition(":")
    return getattr(import_module(module), name)


def resolve(choice: str, dtype: torch.dtype, quantization: str | None = None) -> Kernels:
    """The kernels for weights of `dtype` on the CPU.

    choice: "auto" takes the best backend that works here, "torch" the reference everywhere.
    quantization: "int8" for linear layers of 8 bits.
    Raises ModelError (SGLC504) for any other choice.
    """
    if quantization not in (None, "int8"):
        raise ModelError("SGLC504", f"unknown quantization {quantization!r}",
                         fixes=('use "int8", or leave it out',))
    if choice not in ("auto", "torch"):
        what = f"kernels={choice!r} needs a GPU" if choice in DEVICE_CHOICES \
            else f"unknown kernels {choice!r}"
        raise ModelError("SGLC504", what, fixes=('use "auto" or "torch"',))
    usable = {"torch"}
    if choice == "auto":
        usable |= {name for name, probe in AVAILABLE.items() if load_function(probe)(dtype)}
    chosen = {op: next(b for b in by_backend if b in usable)
              for op, by_backend in IMPLEMENTATIONS.items()}
    where = {op: IMPLEMENTATIONS[op][b] for op, b in chosen.items()}
    if quantization is not None:
        where |= INT8_IMPLEMENTATIONS
        chosen |= dict.fromkeys(INT8_IMPLEMENTATIONS, "int8")
    return Kernels(**{op: load_function(spec) for op, spec in where.items()},
                   backends=tuple(chosen.items()))


def resolve_device(choice: str, fixed: bool = False) -> DeviceKernels:
    """The kernels for a GPU.

    choice: "auto" takes Triton's where it is installed, "triton" insists on it, "torch" takes the
    references; "flashinfer" insists on that package and takes Triton's for what it lacks; "cuda"
    takes what is written in CUDA C++ wherever there is such a form, Triton's for the rest.
    With "auto" too, its attention may serve rows of many tokens, if it is installed.
    fixed: a row's result does not depend on the rows beside it; Triton's only.
    Raises ModelError (SGLC504) for any other choice, and where the package is not installed.
    """
    if choice not in DEVICE_CHOICES:
        raise ModelError("SGLC504", f"unknown kernels {choice!r}",
                         fixes=('use "auto", "torch", "triton", "cuda" or "flashinfer"',))
    needs = "triton" if choice == "cuda" else choice
    if needs in ("triton", "flashinfer") and find_spec(needs) is None:
        raise ModelError("SGLC504", f"the package {needs} is not installed",
                         fixes=('use "auto", or install it',))
    usable = {"torch"}
    if choice != "torch" and find_spec("triton") is not None:
        usable |= {"triton", choice}
    chosen = {op: next(b for b in by_backend if b in usable)
              for op, by_backend in DEVICE_IMPLEMENTATIONS.items()}
    where = {op: DEVICE_IMPLEMENTATIONS[op][b] for op, b in chosen.items()}
    long_rows = "units"
    if "triton" in usable and not fixed and choice in ("auto", "flashinfer"):
        if find_spec("flashinfer") is not None:
            long_rows = choice
        if choice == "flashinfer":
            where |= FLASHINFER_IMPLEMENTATIONS
            chosen |= dict.fromkeys(FLASHINFER_IMPLEMENTATIONS, "flashinfer")
    if choice == "cuda":
        where |= CUDA_IMPLEMENTATIONS
        chosen |= dict.fromkeys(CUDA_IMPLEMENTATIONS, "cuda")
    if fixed:
        if "triton" not in usable:
            raise ModelError(
                "SGLC504", "deterministic=True needs Triton's kernels",
                why="the libraries behind the others choose how to multiply by the number of rows",
                fixes=('use kernels="auto" and install triton', "leave deterministic out"))
        where |= FIXED_IMPLEMENTATIONS
        chosen |= dict.fromkeys(FIXED_IMPLEMENTATIONS, "fixed")
    return DeviceKernels(**{op: load_function(spec) for op, spec in where.items()},
                         long_rows=long_rows, wide_units="cuda" if choice == "cuda" else "triton",
                         backends=tuple(chosen.items()))
