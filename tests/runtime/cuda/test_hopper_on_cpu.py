"""A whole model with the kernels in CUDA C++, thread by thread on the CPU, beside Triton's in its
interpreter; on a GPU of that kind as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sglc.kernels import (
    fixed_linear_triton,
    fused_linear_triton,
    hopper_attention_cuda,
    hopper_gemm_cuda,
    rope_linear_cuda,
)
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.model_runner import load_runner
from tests.kernels.on_cpu.kernel import attention_on_cpu, gemm_on_cpu, needs_compiler
from tests.runtime.cuda.test_device_runner import save_model
from tests.runtime.model_steps import alone, run, tokens

pytest.importorskip("triton")

GPU = torch.cuda.is_available()


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int, bool]]:
    """The forms of products that were taken, and ("attention", units, False)."""
    taken = set()
    if not GPU:
        gemm_on_cpu(monkeypatch)
        attention_on_cpu(monkeypatch)
        monkeypatch.setattr(hopper_gemm_cuda, "_processors", lambda device: 6)
        monkeypatch.setattr(hopper_attention_cuda, "takes_attention", lambda *_: "")

        def takes(x: torch.Tensor, weight: torch.Tensor, out_dtype: Any = None) -> bool:
            return x.dtype is torch.float16 and len(weight) % 16 == 0

        for module in (fused_linear_triton, fixed_linear_triton, rope_linear_cuda):
            monkeypatch.setattr(module, "takes", takes)
    elif torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no GPU of compute capability 9.0")
    gemm, attention = hopper_gemm_cuda._kernel, hopper_attention_cuda._kernel

    def product(form: Any, config: Any, device: int) -> Any:
        taken.add((form.result, form.count, form.block > 0))
        return gemm(form, config, device)

    def attends(form: Any, device: int) -> Any:
        taken.add(("attention", form.dim, False))
        return attention(form, device)

    monkeypatch.setattr(hopper_gemm_cuda, "_kernel", product)
    monkeypatch.setattr(hopper_attention_cuda, "_kernel", attends)
    return taken


def steps(tmp_path: Path, used: set[tuple[str, int, bool]], kernels: str, fixed: bool) -> None:
    """Three prompts read side by side, one of them in two pieces, as by the CPU's model."""
    path = save_model(tmp_path, hidden_size=128, num_attention_heads=2, num_key_value_heads=1,
                      head_dim=64)
    cpu = load_runner(path)[0]
    runner = load_device_runner(path, device="cuda" if GPU else "cpu", kernels=kernels,
                                dtype="float16", graphs=False, max_tokens=512, max_rows=64,
                                deterministic=fixed)[0]
    prompts = [tokens(n, 264, seed=n) for n in (130, 70, 90)]
    want = [alone(cpu, ids) for ids in prompts]
    runner.allocate(320)
    slots = np.random.default_rng(0).permutation(320)
    places = np.split(slots, (130, 200, 290))[:3]
    first = run(runner, [(prompts[0][:50], 0, places[0][:50]), (prompts[1], 0, places[1]),
                         (prompts[2], 0, places[2])])
    second = run(runner, [(prompts[0], 50, places[0])])
    found = torch.cat((first, second)).float().cpu()
    exact = torch.cat((want[0][:50], want[1], want[2], want[0][50:]))
    assert (found - exact).abs().max() <= 2e-2 * exact.abs().max()


@needs_compiler
def test_with_norms_in_the_products(tmp_path: Path, used: set[tuple[str, int, bool]]) -> None:
    """Of 210 tokens a step, whose products do the norms, and of 80."""
    steps(tmp_path, used, "cuda", False)
    assert used == {("attention", 64, False), ("RESIDUAL", 0, True), ("ROPE", 2, False),
                    ("SILU", 2, False), ("SILU", 0, False)}


@needs_compiler
@pytest.mark.slow
def test_deterministic(tmp_path: Path, used: set[tuple[str, int, bool]]) -> None:
    steps(tmp_path, used, "triton", True)
    assert {("RESIDUAL", 0, True), ("PLAIN", 2, False), ("SILU", 2, False)} <= used
    assert not any(result == "attention" for result, *_ in used)
