"""Products in CUDA C++: on a GPU against float32; elsewhere how they are cut."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglc.kernels import (
    fixed_linear_triton,
    fused_linear_triton,
    hopper_gemm_cuda,
    rope_linear_cuda,
)
from sglc.kernels.cuda_program import CudaKernel
from sglc.kernels.fixed_linear_triton import add_linear_fixed, fixed_linear
from sglc.kernels.fused_linear import fused_linear_torch
from sglc.kernels.fused_linear_triton import add_linear_triton, pack_triton
from sglc.kernels.hopper_gemm_cuda import (
    HopperGemmConfig,
    HopperGemmForm,
    hopper_gemm,
    hopper_gemm_add,
    hopper_gemm_columns,
    hopper_gemm_config,
    hopper_gemm_rope,
    row_sums,
    takes,
)
from sglc.kernels.residual import Residual
from sglc.kernels.rope import rope_frequencies
from sglc.kernels.rope_linear import rope_linear_torch
from sglc.kernels.rope_store import rope_table
from tests.kernels.on_cpu.kernel import KernelFailed, gemm_on_cpu, needs_compiler, some
from tests.kernels.triton.places import close

fused_linear = fused_linear_triton.fused_linear_triton

HALVES = [torch.bfloat16, torch.float16]
OTHER = dict(zip(HALVES, HALVES[::-1], strict=True))
FORMS = [HopperGemmForm(kind, *what) for kind in HALVES for what in (
    ("PLAIN",), ("PLAIN", 64), ("WIDE",), ("RESIDUAL",), ("RESIDUAL", 0, 64),
    ("RESIDUAL", 0, 128), ("SILU",), ("SILU", 9), ("GELU", 40), ("ROPE", 0, 0, 128),
    ("ROPE", 64, 0, 96))]


def configs(form: HopperGemmForm, parts: int = 1) -> list[HopperGemmConfig]:
    return [HopperGemmConfig(columns, *blocks) for columns in hopper_gemm_columns(form)
            for blocks in ((1, 1), (2, 1), (1, 2))[:1 + parts]]


def tiles(c: HopperGemmConfig, form: HopperGemmForm, rows: int, outs: int) -> int:
    each = c.columns // 2 if form.gated else c.columns
    return -(-rows // (128 * c.across)) * -(-outs // each)


@given(st.integers(1, 20_000), st.integers(1, 4000).map(lambda n: 16 * n), st.sampled_from(FORMS),
       st.integers(2, 200), st.sampled_from([1, 2]))
def test_what_is_chosen(rows: int, outs: int, form: HopperGemmForm, processors: int,
                        parts: int) -> None:
    """One of the forms that there are; and of its width none with far fewer rounds."""
    chosen = hopper_gemm_config(rows, outs, form, processors, parts)
    assert chosen in configs(form, parts)
    if form.block:
        assert chosen.columns % form.block == 0

    def rounds(c: HopperGemmConfig) -> int:
        return -(-tiles(c, form, rows, outs) // (processors // (c.across * c.parts)))
    for other in configs(form, parts):
        if (other.columns, other.parts) == (chosen.columns, chosen.parts):
            assert rounds(chosen) <= rounds(other) * 1.03


def test_the_shapes_it_was_made_for() -> None:
    """What a Llama 3.1 8B multiplies, on 132 processors: whole rounds at 256 rows, and at 128."""
    def chosen(rows: int, outs: int, *what: object, parts: int = 1) -> HopperGemmConfig:
        form = HopperGemmForm(torch.bfloat16, *what)  # type: ignore[arg-type]
        return hopper_gemm_config(rows, outs, form, 132, parts)

    assert chosen(256, 14336, "SILU", 64) == HopperGemmConfig(224, 2)
    assert chosen(128, 14336, "SILU", 64) == HopperGemmConfig(224, 1)
    assert chosen(256, 6144, "PLAIN", 64) == HopperGemmConfig(96, 2)
    assert chosen(256, 4096, "RESIDUAL", 0, 64, parts=2) == HopperGemmConfig(128, 1, 2)
    assert chosen(256, 4096, "RESIDUAL", 0, 64) == HopperGemmConfig(64, 2)


def test_sums_of_squares_fit_in_registers() -> None:
    for width in (8, 576, 4096, 4104, 8192):
        sums = row_sums(width)
        assert sums is not None and width <= sums.count * sums.block < width + sums.block
        assert sums.count <= sums.stride <= 64 and sums.stride % 16 == 0
    assert row_sums(8200) is None


@pytest.mark.parametrize("broken", [False, True])
def test_a_kernel_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, broken: bool,
                                      caplog: pytest.LogCaptureFixture) -> None:
    """Products go on without it, and it is said once."""
    def made(*what: object) -> tuple[None, int]:
        if broken:
            raise RuntimeError("the driver is too old")
        return None, 66

    monkeypatch.setattr(hopper_gemm_cuda, "available", lambda: True)
    monkeypatch.setattr(hopper_gemm_cuda, "_kernel", made)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    device = 1000 + broken  # nobody has asked for it
    for _ in range(3):
        assert hopper_gemm_cuda._usable(device) is not broken
    assert [r.message for r in caplog.records] == [
        "products of many rows take cuBLAS: the driver is too old"] * broken


@pytest.mark.parametrize("module, product", [(fused_linear_triton, fused_linear),
                                             (fixed_linear_triton, fixed_linear)])
@pytest.mark.parametrize("rest", [{}, {"residual": True}, {"gated": True},
                                  {"gated": True, "gelu": True}, {"out_dtype": torch.float32}],
                         ids=str)
def test_all_that_is_asked_for_comes_after_sums(monkeypatch: pytest.MonkeyPatch,
                                                module: ModuleType, product: Any,
                                                rest: dict[str, Any]) -> None:
    """Where a product scales its rows by sums of squares, with the reference in its place."""
    x, weight = torch.randn(20, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    old, one = torch.randn(20, 32).bfloat16(), torch.ones(64).bfloat16()

    def taken(x: Residual, weight: torch.Tensor, residual: torch.Tensor | None = None,
              gated: bool = False, out_dtype: torch.dtype | None = None, gelu: bool = False,
              eps: float = 0.0) -> torch.Tensor:
        assert x.squares is not None
        return fused_linear_torch(x, weight, one, eps, residual, gated, out_dtype, gelu)

    monkeypatch.setattr(module, "hopper_gemm", taken)
    monkeypatch.setattr(module, "takes", lambda *_: True)

    def result(x: Any, product: Any, weight: Any) -> torch.Tensor:
        given = {**rest, "residual": old.clone()} if "residual" in rest else rest
        return product(x, weight, one, 1e-2, **given)

    found = result(Residual(x, x.float().square()), product, pack_triton(weight))
    exact = result(x, fused_linear_torch, weight)
    assert found.dtype is exact.dtype and torch.equal(found, exact)


def test_where_tiles_are_full_enough() -> None:
    """For gate and up; as measured (`bench.gpu_products`)."""
    for rows in (17, 64, 128, 223, 224, 256, 384, 512, 1024, 8448, 16896):
        assert fused_linear_triton.fills(rows)
    for rows in (129, 160, 192, 200, 257, 320):
        assert not fused_linear_triton.fills(rows)


@pytest.mark.parametrize("count", [0, 64])
def test_angles_fit_in_registers(count: int) -> None:
    """A thread keeps those of its two rows: cosines and sines of two pairs each."""
    for dim in range(32, 288, 32):
        for columns in hopper_gemm_columns(HopperGemmForm(torch.bfloat16, "ROPE", count, dim=dim)):
            angles = (columns if columns % dim else dim) // 16
            assert columns // 2 + 8 * angles <= 192, (dim, columns)


def test_not_on_a_cpu() -> None:
    x = torch.zeros(32, 64, dtype=torch.bfloat16)
    assert not takes(x, torch.zeros(128, 64, dtype=torch.bfloat16))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_source_of_every_form(form: HopperGemmForm) -> None:
    """Three stages and more; as many sums as the product has, and two operands and a flag."""
    for config in configs(form, 2):
        source = hopper_gemm_cuda.hopper_gemm_source(form, config).cuda()
        assert f"#define STAGES {config.stages}\n" in source and config.stages >= 3
        kind = "bf16" if form.kind is torch.bfloat16 else "f16"
        assert f"m64n{config.columns}k16.f32.{kind}.{kind}" in source
        assert source.count('"+f"(d[') == config.columns // 2


CPU_FORMS = [
    (HopperGemmForm(torch.bfloat16, "PLAIN"), HopperGemmConfig(64)),
    (HopperGemmForm(torch.float16, "WIDE"), HopperGemmConfig(96, 2)),
    (HopperGemmForm(torch.bfloat16, "RESIDUAL"), HopperGemmConfig(192, 1, 2)),
    (HopperGemmForm(torch.bfloat16, "SILU"), HopperGemmConfig(112, 2)),
    (HopperGemmForm(torch.float16, "GELU"), HopperGemmConfig(128)),
    (HopperGemmForm(torch.bfloat16, "SILU", 5), HopperGemmConfig(224, 2)),
    (HopperGemmForm(torch.float16, "PLAIN", 5), HopperGemmConfig(96))]


@needs_compiler
@pytest.mark.parametrize(("form", "config"), some(CPU_FORMS, 2), ids=str)
def test_on_the_cpu(form: HopperGemmForm, config: HopperGemmConfig,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself, thread by thread: ragged sizes, tiles of one block and of two."""
    gemm_on_cpu(monkeypatch)
    width = 264 if form.count else 200
    torch.manual_seed(0)
    weight = (torch.randn(240 << form.gated, width) / width**0.5).to(form.kind)
    for rows in (40, 150, 300):
        x = torch.randn(rows, width).to(form.kind)
        old = torch.randn(rows, 240).to(form.kind) if form.result == "RESIDUAL" else None
        norm = (torch.ones(width), 1e-5) if form.count else (None, 0.0)
        exact = fused_linear_torch(x.float(), weight.float(), *norm,
                                   None if old is None else old.float(), form.gated,
                                   gelu=form.result == "GELU")
        given: torch.Tensor | Residual = x
        if form.count:
            squares = torch.full((rows, 16), float("nan"))
            squares[:, :form.count] = torch.nn.functional.pad(
                x.float().square(), (0, 320 - width)).view(rows, -1, 64).sum(2)
            given = Residual(x, squares)
        wide = torch.float32 if form.result == "WIDE" else None
        found = hopper_gemm(given, weight, old, form.gated, wide, form.result == "GELU",
                            norm[1], config)
        close(found, exact, wide or form.kind, 2)


@needs_compiler
@pytest.mark.parametrize("config", [HopperGemmConfig(128, 1, 2), HopperGemmConfig(64, 2)], ids=str)
def test_sums_of_squares_on_the_cpu(config: HopperGemmConfig,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    gemm_on_cpu(monkeypatch)
    torch.manual_seed(0)
    x, old = torch.randn(150, 136).bfloat16(), torch.randn(150, 240).bfloat16()
    weight = (torch.randn(240, 136) / 12).bfloat16()
    found = hopper_gemm_add(x, weight, old.clone(), config=config)
    close(found.x, x.float() @ weight.float().t() + old.float(), torch.bfloat16, 2)
    assert found.squares is not None
    wanted = torch.nn.functional.pad(found.x.float().square(), (0, 16)).view(150, 4, 64).sum(2)
    assert torch.allclose(found.squares[:, :4], wanted, rtol=1e-4)


def turned(form: HopperGemmForm, config: HopperGemmConfig, rows: int, width: int, heads: int,
           groups: int, device: str) -> None:
    """Queries, keys and values beside the reference, as `rope_linear` makes and keeps them."""
    x = torch.randn(rows, width, device=device).to(form.kind)
    outs = (heads + 2 * groups) * form.dim
    weight = (torch.randn(outs, width, device=device) / width**0.5).to(form.kind)
    positions = torch.randint(0, 500, (rows,), device=device)
    slots = torch.randperm(rows + 50, device=device)[:rows]
    slots[::7] = -1  # padding, or what is not kept
    table = rope_table(rope_frequencies(form.dim, 1e4), 512).to(device)
    pools = [torch.full((rows + 50, 2, groups, form.dim), 7.0, device=device, dtype=kind)
             for kind in (form.kind, torch.float32)]
    given: torch.Tensor | Residual = x
    if form.count:
        squares = torch.full((rows, -(-form.count // 16) * 16), float("nan"), device=device)
        squares[:, :form.count] = torch.nn.functional.pad(
            x.float().square(), (0, form.count * 64 - width)).view(rows, -1, 64).sum(2)
        given = Residual(x, squares)
    found = hopper_gemm_rope(given, weight, positions, slots, table, pools[0], 1e-5, config)
    exact = rope_linear_torch(x.float(), weight.float(),
                              torch.ones(width, device=device) if form.count else None, 1e-5,
                              positions, slots, table, pools[1])
    close(found, exact, form.kind, 2)
    close(*pools, form.kind, 2)
    assert bool((pools[0][(pools[1] == 7).all((1, 2, 3))] == 7).all())


@needs_compiler
@pytest.mark.parametrize(("form", "config", "heads", "groups"), some([
    (HopperGemmForm(torch.bfloat16, "ROPE", 3, dim=128), HopperGemmConfig(96, 2), 4, 2),
    (HopperGemmForm(torch.float16, "ROPE", dim=64), HopperGemmConfig(64), 3, 1),
    (HopperGemmForm(torch.bfloat16, "ROPE", dim=96), HopperGemmConfig(128, 2), 2, 2),
    (HopperGemmForm(torch.float16, "ROPE", dim=128), HopperGemmConfig(256), 3, 1)], 3), ids=str)
def test_rotated_on_the_cpu(form: HopperGemmForm, config: HopperGemmConfig, heads: int,
                            groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that tiles cut anywhere; rows that are not kept."""
    gemm_on_cpu(monkeypatch)
    torch.manual_seed(0)
    for rows in (40, 150):
        turned(form, config, rows, 136, heads, groups, "cpu")


@needs_compiler
def test_sums_without_a_norm_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    gemm_on_cpu(monkeypatch)
    monkeypatch.setattr(hopper_gemm_cuda, "_processors", lambda device: 6)
    monkeypatch.setattr(rope_linear_cuda, "takes", lambda *_: True)
    torch.manual_seed(0)
    x = torch.randn(20, 64).bfloat16()
    weight = (torch.randn(4 * 64, 64) / 8).bfloat16()
    given = Residual(x, (4 * x.float()).square().sum(1, keepdim=True).expand(-1, 16).contiguous())
    table = rope_table(rope_frequencies(64, 1e4), 32)
    where = torch.arange(20)
    pools = torch.zeros(2, 20, 2, 1, 64).bfloat16()
    found = rope_linear_cuda.rope_linear_cuda(given, pack_triton(weight), None, 1e-5, where, where,
                                              table, pools[0])
    exact = rope_linear_torch(given, weight, None, 1e-5, where, where, table, pools[1])
    close(found, exact.float(), torch.bfloat16, 2)
    close(pools[0], pools[1].float(), torch.bfloat16, 2)


WAYS = {
    "inputs not waited for": ("wait(full + 8 * at, phase);", ""),
    "a stage given back too early": ("products_wait<1>();", "products_wait<2>();"),
    "another block's stage not given back": (
        "      if (mine < CM) arrive(empty + 8 * before, peer);",
        "      if (mine < 1) arrive(empty + 8 * before, peer);"),
    "sums not waited for": ("products_wait<0>();", ""),
    "no room waited for": ("wait(empty + 8 * at, phase);", ""),
    "fewer bytes": ("W_BYTES + min(rows, ROWS) * SPAN * 2", "W_BYTES"),
}


@needs_compiler
@pytest.mark.parametrize("way", some(WAYS, 3), ids=str)
def test_what_is_wrong_is_found(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, which runs what threads, copies and products do in a random order."""
    gemm_on_cpu(monkeypatch, [WAYS[way]])
    torch.manual_seed(0)
    x, weight = torch.randn(300, 1000).bfloat16(), torch.randn(240, 1000).bfloat16()
    try:
        for _ in range(3):
            found = hopper_gemm(x, weight, config=HopperGemmConfig(96, 2))
            close(found, x.float() @ weight.float().t(), torch.bfloat16, 4)
    except (KernelFailed, AssertionError):
        return
    pytest.fail("nothing was found")


@pytest.fixture
def hopper() -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no GPU of compute capability 9.0")
    torch.backends.cuda.matmul.allow_tf32 = False


def random(*size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(size, dtype=dtype, device="cuda")


SHAPES = ((6144, 4096), (1008, 1032), (96, 4096), (16, 40), (3584, 8))
ROWS = (1, 17, 100, 128, 129, 255, 300, 500, 1100)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("result", ["PLAIN", "WIDE", "RESIDUAL", "SILU", "GELU"])
def test_against_float32(dtype: torch.dtype, result: str) -> None:
    """Every form of a tile, ragged sizes; all give the same bits."""
    form = HopperGemmForm(dtype, result)
    wide = torch.float32 if result == "WIDE" else None
    for outs, width in SHAPES:
        weight = random(outs << form.gated, width, dtype=dtype) / width**0.5
        for rows in ROWS:
            x = random(rows, width, dtype=dtype)
            assert takes(x, weight) and not takes(x.float(), weight)
            assert not takes(x, weight.to(OTHER[dtype]))
            old = random(rows, outs, dtype=dtype) if result == "RESIDUAL" else None
            exact = fused_linear_torch(
                x.float(), weight.float(), residual=None if old is None else old.float(),
                gated=form.gated, gelu=result == "GELU")
            results = [hopper_gemm(x, weight, None if old is None else old.clone(), form.gated,
                                   wide, result == "GELU", config=config)
                       for config in configs(form)]
            close(results[0], exact, wide or dtype, 2)
            for config, other in zip(configs(form), results, strict=True):
                assert torch.equal(results[0], other), (rows, outs, width, config)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sums_of_squares(dtype: torch.dtype) -> None:
    """Of what is added to the residual, and a norm by them in the next product; every form of a
    tile, of which those that are not cut give the same bits."""
    for hidden, width in ((4096, 1536), (5120, 512), (1040, 264), (48, 4096), (8192, 1024)):
        rule = row_sums(hidden)
        assert rule is not None
        block = rule.block
        form = HopperGemmForm(dtype, "RESIDUAL", 0, block)
        down, up = random(hidden, width, dtype=dtype) / width**0.5, random(
            2 * 200, hidden, dtype=dtype) / hidden**0.5
        for rows in (1, 129, 300):
            x, old = random(rows, width, dtype=dtype), random(rows, hidden, dtype=dtype)
            exact = x.float() @ down.float().t() + old.float()
            first = None
            for config in configs(form, 2):
                if config.parts > 1 and width < 1024:
                    continue
                found = hopper_gemm_add(x, down, old.clone(), config=config)
                close(found.x, exact, dtype, 2)
                assert found.squares is not None
                parts = torch.nn.functional.pad(found.x.float().square(), (0, -hidden % block))
                wanted = parts.view(rows, -1, block).sum(2)
                sums = found.squares[:, :wanted.shape[1]]
                assert torch.allclose(sums, wanted, rtol=1e-4), (hidden, rows, config)
                first = first or found
                if config.parts == 1:
                    assert torch.equal(first.x, found.x)
                    assert torch.equal(first.squares[:, :sums.shape[1]], sums)
            assert first is not None and first.squares is not None
            first.squares[:, wanted.shape[1]:] = float("nan")  # nobody may read these
            base = random(rows, 2 * 200, dtype=dtype)
            for result in ("PLAIN", "SILU", "RESIDUAL"):
                gated, adds = result == "SILU", result == "RESIDUAL"
                exact = fused_linear_torch(
                    first.x.float(), up.float(), torch.ones(hidden, device="cuda"), 1e-5,
                    base.float() if adds else None, gated)
                results = [hopper_gemm(first, up, base.clone() if adds else None, gated, eps=1e-5,
                                       config=config)
                           for config in configs(HopperGemmForm(dtype, result, wanted.shape[1]))]
                close(results[0], exact, dtype, 2)
                for other in results:
                    assert torch.equal(results[0], other)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rotated(dtype: torch.dtype) -> None:
    """Of real shapes, every form of a tile."""
    for heads, groups, dim, width in ((32, 8, 128, 4096), (9, 3, 64, 576), (28, 4, 128, 3584),
                                      (32, 32, 96, 3072)):
        for count in (0, -(-width // 64)):
            form = HopperGemmForm(dtype, "ROPE", count, dim=dim)
            for config in configs(form):
                for rows in (1, 100, 256, 1100):
                    turned(form, config, rows, width, heads, groups, "cuda")


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_rows_do_not_depend_on_each_other() -> None:
    weight = random(28672, 512, dtype=torch.bfloat16)
    x, old = random(3000, 512, dtype=torch.bfloat16), random(3000, 2048, dtype=torch.bfloat16)
    whole = hopper_gemm(x, weight, gated=True)
    added = hopper_gemm_add(x, weight[:2048], old.clone())
    normed = hopper_gemm(added, weight.view(-1, 2048), eps=1e-5)
    assert added.squares is not None
    for first, last in ((0, 1), (5, 133), (100, 356), (0, 1024), (2999, 3000)):
        some = slice(first, last)
        assert torch.equal(hopper_gemm(x[some], weight, gated=True), whole[some])
        part = hopper_gemm_add(x[some], weight[:2048], old[some].clone())
        assert part.squares is not None
        assert torch.equal(part.x, added.x[some])
        assert torch.equal(part.squares, added.squares[some])
        assert torch.equal(hopper_gemm(part, weight.view(-1, 2048), eps=1e-5), normed[some])


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_nothing_else_is_written_and_nan_stays_in_its_row() -> None:
    """The result lies between others' memory; what is outside of the matrices counts as zero."""
    weight = random(2 * 120, 72, dtype=torch.float16)
    x = random(131, 72, dtype=torch.float16)
    room = torch.full((3, 131 * 240), 7.0, dtype=torch.float16, device="cuda")

    class Given(torch.Tensor):
        def new_empty(self, rows: int, outs: int, **_: object) -> torch.Tensor:
            return room[1, :rows * outs].view(rows, outs)

    x[7] = float("nan")
    for gated in (False, True):
        found = hopper_gemm(x.as_subclass(Given), weight, gated=gated)
        assert found.data_ptr() == room[1].data_ptr()
        assert bool((room[0] == 7).all()) and bool((room[2] == 7).all())
        assert bool(found[7].isnan().all())
        assert not bool(found[torch.arange(131) != 7].isnan().any())


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_in_a_layer_and_in_a_graph() -> None:
    """After the norm, or the product that made the norm's sums, that it overlaps with, replayed
    with other inputs."""
    weight = pack_triton(random(2 * 1024, 2048, dtype=torch.bfloat16) / 45)
    down = pack_triton(random(2048, 1024, dtype=torch.bfloat16) / 32)
    one = torch.ones(2048, dtype=torch.bfloat16, device="cuda")
    gain, x = random(2048, dtype=torch.bfloat16), random(200, 2048, dtype=torch.bfloat16)
    before = random(200, 1024, dtype=torch.bfloat16)

    def compute() -> list[torch.Tensor]:
        found = [fused_linear(x, weight, gain, 1e-5, gated=True)]
        for add, product in ((add_linear_triton, fused_linear),
                             (add_linear_fixed, fixed_linear)):
            added = add(before, down, x.clone(), True)
            assert added.squares is not None
            found += [added.x, product(added, weight, one, 1e-5, gated=True)]
        return found
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
        before.copy_(random(200, 1024, dtype=torch.bfloat16))
        graph.replay()
        close(found[0], fused_linear_torch(x.float(), weight.weight.float(), gain.float(), 1e-5,
                                           gated=True), torch.bfloat16, 2)
        for added, product in (found[1:3], found[3:5]):
            close(added, fused_linear_torch(before.float(), down.weight.float(),
                                            residual=x.float()), torch.bfloat16, 2)
            close(product, fused_linear_torch(added.float(), weight.weight.float(), one.float(),
                                              1e-5, gated=True), torch.bfloat16, 2)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_where_sums_are_made() -> None:
    """Of the numbers of rows for which that is faster; without them the norm is a kernel."""
    down = pack_triton(random(512, 256, dtype=torch.bfloat16) / 16)
    up = pack_triton(random(512, 512, dtype=torch.bfloat16) / 22)
    one = torch.ones(512, dtype=torch.bfloat16, device="cuda")
    for rows in (1, 16, 17, 128, 160, 192, 224, 256, 257, 2000):
        x, old = random(rows, 256, dtype=torch.bfloat16), random(rows, 512, dtype=torch.bfloat16)
        found = add_linear_triton(x, down, old.clone(), True)
        assert (found.squares is not None) == (rows in (224, 256))
        assert add_linear_triton(x, down, old.clone()).squares is None
        assert add_linear_fixed(x, down, old.clone(), True).squares is not None
        exact = fused_linear_torch(found.x.float(), up.weight.float(), one.float(), 1e-5)
        close(fused_linear(found, up, one, 1e-5), exact, torch.bfloat16, 2)


@pytest.mark.gpu
@pytest.mark.usefixtures("hopper")
def test_a_source_that_does_not_compile() -> None:
    with pytest.raises(RuntimeError, match=r"does not compile.*error"):
        CudaKernel("extern \"C\" __global__ void f() { nothing; }", "f", 32, 1, 0, 0)
