"""Which kernels a GPU gets."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch

from sglc.errors import ModelError
from sglc.kernels import hopper_attention_cuda
from sglc.kernels.registry import DEVICE_IMPLEMENTATIONS, load_function, resolve_device
from sglc.runtime.cuda.attending import UnitSteps
from sglc.runtime.models.config import LlamaConfig


def test_resolve_device() -> None:
    pytest.importorskip("triton")
    reference = resolve_device("torch")
    assert {b for _, b in reference.backends} == {"torch"}
    assert {op for op, _ in reference.backends} == set(DEVICE_IMPLEMENTATIONS)
    assert resolve_device("auto").backends == resolve_device("triton").backends
    assert {b for _, b in resolve_device("auto").backends} == {"triton"}
    with pytest.raises(ModelError, match="SGLC504"):
        resolve_device("quick")


CONFIG = LlamaConfig(vocab_size=64, hidden_size=128, intermediate_size=96, layers=2, heads=2,
                     kv_heads=1, head_dim=64, rms_eps=1e-5, rope_theta=5000.0, context_length=512,
                     tied=True)


def test_cuda_attends_where_it_is_asked_for() -> None:
    """CUDA C++ for wide units alone, and an error where that cannot be."""
    pytest.importorskip("triton")
    asked = resolve_device("cuda")
    assert {(op, b) for op, b in asked.backends if b != "triton"} == {("rope_linear", "cuda")}
    assert (asked.wide_units, asked.long_rows) == ("cuda", "units")
    assert resolve_device("auto").wide_units == "triton"
    cpu = torch.device("cpu")
    with pytest.raises(ModelError, match=r"kernels=\"cuda\" does not work here") as raised:
        UnitSteps(CONFIG, torch.bfloat16, cpu, cuda=True)
    assert "compute capability 9.0" in str(raised.value)
    fixed = UnitSteps(CONFIG, torch.bfloat16, cpu, fixed=True, cuda=True)
    assert not fixed._tune.cuda  # one form for all, whatever the number of queries


@pytest.mark.parametrize(("config", "kind", "taken"), [
    (CONFIG, torch.float16, True), (CONFIG, torch.float32, False),
    (replace(CONFIG, head_dim=96), torch.float16, False),
    (replace(CONFIG, attention_cap=50.0), torch.float16, False),
    (replace(CONFIG, windows=(64, 64)), torch.float16, False),
    (replace(CONFIG, windows=(64, 0)), torch.float16, True)])
def test_cuda_attends_where_there_is_a_form(monkeypatch: pytest.MonkeyPatch, config: LlamaConfig,
                                            kind: torch.dtype, taken: bool) -> None:
    """Other models are opened as well, with Triton's attention and the work cut for that."""
    pytest.importorskip("triton")
    monkeypatch.setattr(hopper_attention_cuda, "takes_attention", lambda *_: "")
    cpu = torch.device("cpu")
    steps, usual = UnitSteps(config, kind, cpu, cuda=True), UnitSteps(config, kind, cpu)
    assert steps._tune.cuda == taken
    assert (steps.shape == usual.shape) != taken


@pytest.mark.parametrize("operation", sorted(DEVICE_IMPLEMENTATIONS))
def test_one_interface_an_operation(operation: str) -> None:
    pytest.importorskip("triton")
    forms = [load_function(spec) for spec in DEVICE_IMPLEMENTATIONS[operation].values()]
    names = {tuple(inspect.signature(form).parameters) for form in forms}
    assert len(names) == 1
