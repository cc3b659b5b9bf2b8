"""8-bit weights on the CPU: as near as 8 bits are, the same for any number of rows, and an explicit
option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sglc
from sglc.errors import SglcError
from sglc.kernels.int8 import linear_int8, pack_int8
from sglc.runtime.model_runner import load_runner
from tests.runtime.cuda.test_device_runner import save_model
from tests.runtime.model_steps import alone, close, tokens


@pytest.mark.parametrize(("outs", "width"), [(1, 1), (7, 40), (96, 64), (300, 576)])
def test_products(outs: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(outs, width, generator=random)
    weight[0] = 0
    packed = pack_int8(weight)
    dense = packed.codes.float() * packed.scales.float()[:, None]
    assert ((dense - weight).abs() <= weight.abs().amax(1, keepdim=True) / 127 * 0.76).all()
    for rows in (0, 1, 2, 9, 33, 100):
        x = torch.randn(rows, width, generator=random)
        y = linear_int8(x, packed)
        assert y.dtype is torch.float32 and y.shape == (rows, outs)
        exact = x.bfloat16().double() @ dense.double().t()
        assert torch.all((y - exact).abs() <= 8e-3 * (1 + exact.abs()))
    some = torch.tensor([0, outs - 1])
    x = torch.randn(3, width, generator=random)
    close(linear_int8(x, packed.take(some)), linear_int8(x, packed)[:, some], 0.5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model(tmp_path: Path, tied: bool) -> None:
    save_model(tmp_path, tie_word_embeddings=tied)
    plain, small = load_runner(tmp_path)[0], load_runner(tmp_path, quantization="int8")[0]
    ids = tokens(50, 264)
    expected, got = alone(plain, ids), alone(small, ids)
    assert (got - expected).abs().max() <= 0.03 * expected.abs().max()
    assert not torch.equal(got, expected)
    close(torch.cat([alone(small, ids[:40]), got[40:]]), got, 0.02 * float(expected.abs().max()))
    hidden, some = torch.randn(3, 64), np.array([3, 77])
    close(small.logits_of(hidden, some), small.logits(hidden)[:, some], 0.02)


def test_the_option(tmp_path: Path) -> None:
    save_model(tmp_path)
    with pytest.raises(SglcError, match="unknown quantization 'int3'"):
        sglc.Engine(tmp_path, device="cpu", quantization="int3")
    with pytest.raises(SglcError, match="SGLC504"):
        load_runner(tmp_path, quantization="")
