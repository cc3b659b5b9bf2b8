"""Sums of squares that a product makes of the residual, and the next one scales its rows by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.registry import resolve_device
from sglc.kernels.residual import Residual
from sglc.kernels.rope_store import rope_store_torch
from sglc.runtime.cuda import load
from sglc.runtime.cuda.reader import DeviceReader
from sglc.runtime.model_runner import load_runner, open_model
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

    def rope_linear(x: Any, weight: Any, norm: Any, eps: float, positions: Any, slots: Any,
                    table: Any, pool: Any, q_norm: Any, k_norm: Any, bias: Any) -> Any:
        return rope_store_torch(fused_linear(x, weight, norm, eps), positions, slots, table, pool,
                                q_norm, k_norm, eps, bias)

    plain = resolve_device("torch")
    monkeypatch.setattr(load, "resolve_device", lambda *_: replace(
        plain, add_linear=add_linear, fused_linear=fused_linear, rope_linear=rope_linear))
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


FIRST = "model.layers.0"
GATED = [f"{FIRST}.mlp.gate_proj.weight", f"{FIRST}.mlp.up_proj.weight"]


def reader(path: Path, dtype: torch.dtype, changed: dict[str, torch.Tensor]) -> DeviceReader:
    """Of the model at `path`, some of whose tensors are others."""
    source, config = open_model(path)[:2]

    class Changed:
        path, mapped, names, place = source.path, source.mapped, source.names, source.place

        def read(self, name: str) -> torch.Tensor:
            return changed[name] if name in changed else source.read(name)

    return DeviceReader(config, Changed(), resolve_device("torch"),  # type: ignore[arg-type]
                        dtype, torch.device("cpu"))


@pytest.mark.parametrize("name", ["mistral", "gemma"])
def test_products_too_large_for_the_type(tmp_path: Path, name: str) -> None:
    """A norm's weights stay outside of matrices that have no numbers for both together."""
    at = f"{FIRST}.post_attention_layernorm.weight"
    gain = torch.ones(32)
    gain[3] = -3000.0
    matrix = torch.ones(48, 32)
    matrix[0, 3] = 30.0
    read = reader(save_family(tmp_path, name), torch.float16, {at: gain, GATED[1]: matrix})
    x = torch.ones(1, 32, dtype=torch.float16)
    x[0, 3] = 1e-3
    packed, weights, unit = read.after_norm(at, *GATED)
    assert not unit and not bool((weights == 1).all())
    small = read.after_norm(f"{FIRST}.input_layernorm.weight", *GATED)
    assert small[2] and bool(torch.isfinite(small[0]).all())
    found = fused_linear_torch(x, packed, weights, 1e-5)[:, 48:]
    exact = fused_linear_torch(x.float(), matrix, gain + (name == "gemma"), 1e-5)
    assert bool(torch.isfinite(found).all())
    close(found.float(), exact, 1e-1)


class Made(TorchDispatchMode):
    """Bytes of every new tensor as large as `least`."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.bytes = least, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        old = {a.data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(found, torch.Tensor) and found.numel() >= self.least \
                and found.data_ptr() not in old:
            self.bytes += found.nbytes
        return found


@pytest.mark.parametrize("name", ["mistral", "gemma"])
def test_matrices_are_copied_once(tmp_path: Path, name: str) -> None:
    """A model may leave less room than its largest matrices take."""
    read = reader(save_family(tmp_path, name), torch.bfloat16, {})
    gain = read.norm(f"{FIRST}.post_attention_layernorm.weight").float()
    parts = [read.tensor(label) for label in GATED]
    with Made(2 * 48 * 32) as made:
        packed, _, unit = read.after_norm(f"{FIRST}.post_attention_layernorm.weight", *GATED)
    assert unit and packed.dtype is torch.bfloat16
    assert torch.equal(packed, (torch.cat(parts).float() * gain).bfloat16())
    assert made.bytes == packed.nbytes
