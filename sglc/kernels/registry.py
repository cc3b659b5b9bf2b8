"""Chooses, once, the implementation of every operation.

An operation has one reference in plain torch and maybe faster forms.  Implementations are named
as "module:function" and imported only when chosen.  All are pure functions of tensors (`store_kv`
writes into the tensor it is given); none knows an engine object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sglc.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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

# backend -> a function of the weights' type that says whether it works here.
AVAILABLE: dict[str, str] = {"onednn": "sglc.kernels.linear:onednn_available"}


@dataclass(frozen=True, slots=True)
class Kernels:
    """One implementation of each operation; `backends` says which."""

    pack_linear: Callable[[Tensor], Tensor]
    linear: Callable[[Tensor, Tensor], Tensor]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    rope_angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rope: Callable[[Tensor, Tensor, Tensor], Tensor]
    store_kv: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    attention: Callable[[Tensor, Tensor, Tensor | None, bool], Tensor]
    silu_mul: Callable[[Tensor], Tensor]
    backends: tuple[tuple[str, str], ...]


def load_function(spec: str) -> Any:
    """The function that "module:function" names."""
    module, _, name = spec.partition(":")
    return getattr(import_module(module), name)


def resolve(choice: str, dtype: torch.dtype) -> Kernels:
    """The kernels for weights of `dtype` on the CPU.

    choice: "auto" takes the best backend that works here, "torch" the reference everywhere.
    Raises ModelError (SGLC504) for any other choice.
    """
    if choice not in ("auto", "torch"):
        raise ModelError("SGLC504", f"unknown kernels {choice!r}", fixes=('use "auto" or "torch"',))
    usable = {"torch"}
    if choice == "auto":
        usable |= {name for name, probe in AVAILABLE.items() if load_function(probe)(dtype)}
    chosen = {op: next(b for b in by_backend if b in usable)
              for op, by_backend in IMPLEMENTATIONS.items()}
    return Kernels(**{op: load_function(IMPLEMENTATIONS[op][b]) for op, b in chosen.items()},
                   backends=tuple(chosen.items()))
