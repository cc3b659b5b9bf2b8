"""Sums of squares that a product makes of the residual, and the next one scales its rows by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.registry import resolve_device
from sglc.kernels.residual import Residual
from sglc.runtime.cuda import load
from sglc.runtime.model_runner import load_runner
from tests.runtime.cuda.test_device_families import CASES, VOCAB, on_device, save_family
from tests.runtime.model_steps import alone, close, tokens

# Of three layers: norms but the first one, between a product that adds to the residual and one
# that takes the norm.  Experts do neither; one layer of qwen2_moe has none.
MADE = {"llama": 5, "mistral": 5, "mixtral": 0, "qwen2": 5, "qwen2_moe": 2, "qwen3_moe": 0,
        "gemma": 5, "gemma2": 0}


@pytest.mark.parametrize("name", CASES)
def test_every_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They are made where what comes next is a product whose norm has weights of one, without a
    bias between or another norm, and each is taken once, in place of that norm."""
    path = save_family(tmp_path, name, num_hidden_layers=3, **(
        {"attention_bias": False, "mlp_bias": False} if name == "llama" else {}))
    made: list[torch.Tensor] = []
    taken: list[torch.Tensor] = []

    def add_linear(x: torch.Tensor, weight: Any, residual: torch.Tensor,
                   squares: bool = False) -> Residual:
        y = fused_linear_torch(x, weight, residual=residual)
        if squares:
            made.append(y.square().view(len(y), 2, -1).sum(2))
        return Residual(y, made[-1] if squares else None)

    def fused_linear(x: Any, weight: Any, norm: Any = None, eps: float = 0.0, residual: Any = None,
                     gated: bool = False, out_dtype: Any = None, gelu: bool = False) -> Any:
        if isinstance(x, Residual) and x.squares is not None:
            assert norm is not None and bool((norm == 1).all())
            taken.append(x.squares)
            scale = (x.squares.sum(1, keepdim=True) / x.x.shape[1] + eps).rsqrt()
            x, norm = x.x * scale, None
        return fused_linear_torch(x, weight, norm, eps, residual, gated, out_dtype, gelu)

    plain = resolve_device("torch")
    monkeypatch.setattr(load, "resolve_device", lambda *_: replace(
        plain, add_linear=add_linear, fused_linear=fused_linear))
    runner = on_device(path, ("cpu", "torch", False))
    ids = tokens(20, VOCAB)
    close(alone(runner, ids), alone(load_runner(path)[0], ids), 1e-3)
    assert len(made) == MADE[name]
    assert all(a is b for a, b in zip(made, taken, strict=True))


def test_weights_of_norms_in_the_matrices(tmp_path: Path) -> None:
    """The norms before products have weights of one, and those before experts their own."""
    for name in ("mistral", "qwen2_moe"):
        path = tmp_path / name
        path.mkdir()
        layers = on_device(save_family(path, name, num_hidden_layers=3), (
            "cpu", "torch", False))._open()._layers
        for n, layer in enumerate(layers):
            assert layer.unit and bool((layer.attention_norm == 1).all())
            dense = name == "mistral" or n == 1
            assert layer.feed.unit == dense == bool((layer.feed.norm == 1).all())
