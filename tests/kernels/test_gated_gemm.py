"""Products with a gate in CUDA C++: on a GPU against float32; elsewhere how they are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglc.kernels import gated_gemm_cuda
from sglc.kernels.cuda_program import CudaKernel
from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import fused_linear_triton, pack_triton
from sglc.kernels.gated_gemm_cuda import (
    GatedGemmConfig,
    gated_gemm,
    gated_gemm_config,
    takes,
)
from tests.kernels.triton.places import close

OTHER = {torch.bfloat16: torch.float16, torch.float16: torch.bfloat16}
CONFIGS = [GatedGemmConfig(128, columns, across) for columns in (112, 128, 224, 256)
           for across in (1, 2)] + [GatedGemmConfig(256, 112, 1, 2), GatedGemmConfig(256, 128)]


@given(st.integers(17, 10_000), st.integers(1, 4000).map(lambda n: 8 * n), st.integers(2, 200))
def test_what_is_chosen(rows: int, outs: int, processors: int) -> None:
    """A tile of at most so many sums as there are registers for, and the fewest rounds of its
    width."""
    chosen = gated_gemm_config(rows, outs, processors)
    assert chosen in CONFIGS and chosen.rows * chosen.columns // 256 <= 128

    def rounds(c: GatedGemmConfig) -> int:
        tiles = -(-rows // (c.rows * c.across)) * -(-outs // (c.columns // 2))
        return -(-tiles // (processors // c.across))
    for other in CONFIGS[:8]:
        if other[1:] == chosen[1:]:
            continue
        if other.columns == chosen.columns:
            assert rounds(chosen) <= rounds(other) * 1.03


def test_the_shape_it_was_made_for() -> None:
    """Two full rounds of 132 processors at 256 rows of a Llama 3.1 8B, one at 128."""
    assert gated_gemm_config(256, 14336, 132) == GatedGemmConfig(128, 224, 2)
    assert gated_gemm_config(128, 14336, 132) == GatedGemmConfig(128, 224, 1)


@pytest.mark.parametrize("broken", [False, True])
def test_a_kernel_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, broken: bool,
                                      caplog: pytest.LogCaptureFixture) -> None:
    """Products go on without it, and it is said once."""
    def made(*what: object) -> tuple[None, int]:
        if broken:
            raise RuntimeError("the driver is too old")
        return None, 66

    monkeypatch.setattr(gated_gemm_cuda, "available", lambda: True)
    monkeypatch.setattr(gated_gemm_cuda, "_kernel", made)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    device = 1000 + broken  # nobody has asked for it
    for _ in range(3):
        assert gated_gemm_cuda._usable(torch.bfloat16, device) is not broken
    assert [r.message for r in caplog.records] == [
        "products with a gate take cuBLAS: the driver is too old"] * broken


def test_not_on_a_cpu() -> None:
    x = torch.zeros(32, 64, dtype=torch.bfloat16)
    assert not takes(x, torch.zeros(128, 64, dtype=torch.bfloat16))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_source_of_every_form(config: GatedGemmConfig) -> None:
    """Three stages and more; as many sums as the product has, and two operands and a flag."""
    source = gated_gemm_cuda._source("bf16", config, False)
    assert f"#define STAGES {gated_gemm_cuda._MEMORY // config.stage}\n" in source
    assert gated_gemm_cuda._MEMORY // config.stage >= 3
    assert f"m64n{config.columns}k16.f32.bf16.bf16" in source
    assert source.count('"+f"(d[') == config.columns // 2


@pytest.fixture
def hopper() -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no GPU of compute capability 9.0")
    torch.backends.cuda.matmul.allow_tf32 = False


def random(*size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(size, dtype=dtype, device="cuda")


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_against_float32(dtype: torch.dtype) -> None:
    """Every form, ragged sizes, both activations; all forms give the same bits."""
    for outs, width in ((14336, 4096), (1000, 1032), (96, 4096), (8, 40), (3584, 8)):
        weight = random(2 * outs, width, dtype=dtype) / width**0.5
        for rows in (1, 17, 128, 129, 255, 300, 1100):
            x = random(rows, width, dtype=dtype)
            assert takes(x, weight) and not takes(x.float(), weight)
            assert not takes(x, weight.to(OTHER[dtype]))
            for gelu in (False, True):
                exact = fused_linear_torch(x.float(), weight.float(), gated=True, gelu=gelu)
                results = [gated_gemm(x, weight, gelu, config) for config in CONFIGS]
                close(results[0], exact, dtype, 2)
                for config, other in zip(CONFIGS, results, strict=True):
                    assert torch.equal(results[0], other), (rows, outs, width, config)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_rows_do_not_depend_on_each_other() -> None:
    weight = random(28672, 512, dtype=torch.bfloat16)
    x = random(3000, 512, dtype=torch.bfloat16)
    whole = gated_gemm(x, weight)
    for first, last in ((0, 1), (5, 133), (100, 356), (0, 1024), (2999, 3000)):
        assert torch.equal(gated_gemm(x[first:last], weight), whole[first:last])


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_nothing_else_is_written_and_nan_stays_in_its_row() -> None:
    """The result lies between others' memory; what is outside of the matrices counts as zero."""
    weight = random(2 * 120, 72, dtype=torch.float16)
    x = random(131, 72, dtype=torch.float16)
    room = torch.full((3, 131 * 120), 7.0, dtype=torch.float16, device="cuda")

    class Given(torch.Tensor):
        def new_empty(self, *_: object) -> torch.Tensor:  # type: ignore[override]
            return room[1].view(131, 120)

    x[7] = float("nan")
    found = gated_gemm(x.as_subclass(Given), weight)
    assert found.data_ptr() == room[1].data_ptr()
    assert bool((room[0] == 7).all()) and bool((room[2] == 7).all())
    assert bool(found[7].isnan().all()) and not bool(found[torch.arange(131) != 7].isnan().any())


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_in_a_layer_and_in_a_graph() -> None:
    """After the norm that it overlaps with, replayed with other inputs."""
    weight = pack_triton(random(2 * 1024, 2048, dtype=torch.bfloat16) / 45)
    gain, x = random(2048, dtype=torch.bfloat16), random(200, 2048, dtype=torch.bfloat16)

    def compute() -> torch.Tensor:
        return fused_linear_triton(x, weight, gain, 1e-5, gated=True)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        compute()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        found = compute()
        graph.capture_end()
    torch.cuda.synchronize()
    for _ in range(20):
        x.copy_(random(200, 2048, dtype=torch.bfloat16))
        graph.replay()
        exact = fused_linear_torch(x.float(), weight.weight.float(), gain.float(), 1e-5, gated=True)
        close(found, exact, torch.bfloat16, 2)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_a_source_that_does_not_compile() -> None:
    with pytest.raises(RuntimeError, match=r"does not compile.*error"):
        CudaKernel("extern \"C\" __global__ void f() { nothing; }", "f", 32, 1, 0, 0)
