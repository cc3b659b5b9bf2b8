"""FlashInfer's forms against float32 references, and a model with them against one without.

The package compiles each kernel when it is first used, half a minute for one of attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sglc.kernels import flashinfer_ops as ops
from sglc.kernels.attention_shape import Shape
from sglc.kernels.flashinfer_prefill import FlashInferPrefill, backend_for
from sglc.kernels.long_rows import ragged
from sglc.kernels.paged_attention import Rows, paged_attention_torch
from sglc.kernels.rms_norm import rms_norm_torch
from sglc.kernels.silu_mul import silu_mul_torch
from sglc.runtime.batch import Batch, Row
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.cuda.runner import DeviceRunner
from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import load_runner
from tests.kernels.triton.places import close
from tests.runtime.common import TOKENIZER, ask, request
from tests.runtime.cuda.test_device_runner import save_model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(580)]

CUDA = torch.device("cuda", 0)
BEST = backend_for(torch.cuda.get_device_capability(CUDA) if torch.cuda.is_available() else (9, 0))
ERROR = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}  # of the largest
# (backend, type, query heads, KV heads, head size)
SHAPES = [*((BEST, dtype, *heads, dim) for dtype in (torch.bfloat16, torch.float16)
            for dim in (128, 64) for heads in ((32, 8), (6, 2), (4, 4))),
          *(("fa2", torch.bfloat16, *heads, 128) for heads in ((32, 8), (7, 1)))]


@pytest.fixture(autouse=True)
def package() -> None:
    pytest.importorskip("flashinfer")
    if not torch.cuda.is_available() or BEST is None:
        pytest.skip("no GPU that FlashInfer's attention runs on")


def step(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> tuple[Rows, np.ndarray, int]:
    """Rows of (new tokens, keys before them), each with shuffled slots in a place of a table."""
    tokens, lengths = [n for n, _ in sizes], [n + m for n, m in sizes]
    slots = sum(lengths) + 50
    free = rng.permutation(slots).astype(np.int32)
    stride = max(lengths) + 1
    table = np.zeros(len(sizes) * stride, np.int32)
    offsets = rng.permutation(len(sizes)) * stride
    for offset, n in zip(offsets.tolist(), lengths, strict=True):
        table[offset:offset + n], free = free[:n], free[n:]
    return Rows.of(np.cumsum([0, *tokens[:-1]]).tolist(), tokens, lengths,
                   offsets.tolist()), table, slots


def inputs(rows: Rows, table: np.ndarray, slots: int, shape: Shape, dtype: torch.dtype
           ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, a pool with NaN in every slot that no row reads, and the float32 result."""
    q = torch.randn(rows.total, shape.heads, shape.dim, device=CUDA).to(dtype)
    pool = torch.full((slots, 2, shape.kv_heads, shape.dim), float("nan"), device=CUDA)
    used = torch.from_numpy(np.concatenate([
        table[o:o + n] for o, n in zip(rows.offsets, rows.lengths, strict=True)])).long().to(CUDA)
    pool[used] = torch.randn(len(used), 2, shape.kv_heads, shape.dim, device=CUDA)
    pool = pool.to(dtype)
    return q, pool, paged_attention_torch(q, pool, torch.from_numpy(table).to(CUDA), rows)


def right(found: torch.Tensor, expected: torch.Tensor) -> None:
    worst = float((found.float() - expected).abs().max() / expected.abs().max())
    assert worst <= ERROR[found.dtype], worst


@pytest.mark.parametrize(("backend", "dtype", "heads", "kv_heads", "dim"), SHAPES, ids=str)
def test_ragged_rows(backend: str, dtype: torch.dtype, heads: int, kv_heads: int, dim: int
                     ) -> None:
    """Prompts, chunks after a prefix, and rows of few tokens beside them; again and again with
    one object, and with two steps under way."""
    shape = Shape(heads, kv_heads, dim)
    kernel = FlashInferPrefill(shape, dtype, CUDA, backend)
    rng = np.random.default_rng()
    under_way = []
    for sizes in ([(1, 0)], [(300, 0)], [(129, 700), (1, 63), (1, 900), (1000, 0), (7, 128)],
                  [(int(n), int(m)) for n, m in rng.integers(1, 600, (12, 2))],
                  [(int(n), 0) for n in rng.integers(1, 300, 30)], [(2048, 1500)]):
        rows, table, slots = step(rng, sizes)
        q, pool, expected = inputs(rows, table, slots, shape, dtype)
        under_way.append((kernel.plan(ragged(rows, table)), q, pool, expected))
        for launch, *tensors, want in under_way[-2:]:
            out = torch.full_like(tensors[0], float("nan"))
            launch(*tensors, out)
            right(out, want)


def test_part_of_a_step() -> None:
    """Queries and results may lie between others, which stay as they are."""
    shape, rng = Shape(32, 8, 128), np.random.default_rng()
    kernel = FlashInferPrefill(shape, torch.bfloat16, CUDA, str(BEST))
    rows, table, slots = step(rng, [(300, 77), (260, 0)])
    q, pool, expected = inputs(rows, table, slots, shape, torch.bfloat16)
    around = torch.full((rows.total + 20, *q.shape[1:]), 3.0, device=CUDA, dtype=q.dtype)
    out = around.clone()
    around[13:13 + rows.total] = q
    kernel.plan(ragged(rows, table))(around[13:13 + rows.total], pool, out[13:13 + rows.total])
    right(out[13:13 + rows.total], expected)
    assert bool((out[:13] == 3).all()) and bool((out[13 + rows.total:] == 3).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_norms_and_gate(dtype: torch.dtype) -> None:
    rng = np.random.default_rng()
    for rows, width in ((0, 64), (1, 4096), (int(rng.integers(2, 70)), 72), (300, 1000),
                        (33, 100)):
        x = torch.randn(rows, width, device=CUDA).to(dtype)
        weight = torch.randn(width, device=CUDA).to(dtype)
        if not rows:
            assert ops.rms_norm_flashinfer(x, weight, 1e-5).shape == x.shape
            continue
        for gain in (weight, weight.float()):
            close(ops.rms_norm_flashinfer(x, gain, 1e-5),
                  rms_norm_torch(x.float(), weight.float(), 1e-5), dtype)
        both = torch.randn(rows, 2 * width, device=CUDA).to(dtype)
        close(ops.silu_mul_flashinfer(both), silu_mul_torch(both.float()), dtype, 2)


# -- a model -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Wide weights would make attention choose single keys, by less than bfloat16 tells apart.
    return save_model(tmp_path_factory.mktemp("long"), spread=0.03, max_position_embeddings=8192,
                      hidden_size=512, head_dim=128)


def runner(path: Path, kernels: str, dtype: str = "bfloat16") -> DeviceRunner:
    return load_device_runner(path, device="cuda", kernels=kernels, dtype=dtype, max_tokens=4096,
                              max_rows=64)[0]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What FlashInfer is told from here on."""
    told: list[Any] = []
    plan = FlashInferPrefill.plan

    def noted(self: FlashInferPrefill, rows: Any) -> Any:
        told.append(rows)
        return plan(self, rows)

    monkeypatch.setattr(FlashInferPrefill, "plan", noted)
    return told


def test_logits(model: Path, plans: list[Any]) -> None:
    """Long prompts, then chunks of them with decode rows beside: as in float32 on the CPU."""
    rng = np.random.default_rng()
    ids = rng.integers(0, 264, (4, 1400))
    slots = rng.permutation(4 * 1400).reshape(4, 1400)
    steps = [[(0, 0, 700), (1, 0, 600)], [(1, 600, 601), (0, 700, 1300), (2, 0, 1400), (3, 0, 9)],
             [(0, 1300, 1301), (1, 601, 602), (3, 9, 1400)]]
    device, exact = runner(model, "flashinfer"), load_runner(model)[0]
    del plans[:]
    for each in (device, exact):
        each.allocate(4 * 1400)
    for parts in steps:
        rows, start = [], 0
        for i, a, b in parts:
            rows.append(Row(start, b - a, slots[i, :b]))
            start += b - a
        batch = Batch(*(np.concatenate([x[i, a:b] if x is not None else np.arange(a, b)
                                        for i, a, b in parts]) for x in (ids, None, slots)),
                      rows, np.arange(0, start, 5))
        want = exact.logits(exact.forward(batch))
        got = device.logits(device.forward(batch)).cpu()
        assert (got - want).abs().max() <= 2e-2 * want.abs().max()
    assert [(p.q_ends[1:] - p.q_ends[:-1]).tolist() for p in plans] == [
        [700, 600], [600, 1400], [1391]]
    device.close()


def test_greedy_text(model: Path, plans: list[Any]) -> None:
    """As with Triton's kernels, up to ties: where ids first differ, both are about as likely."""
    text = "The quick brown fox jumps over the lazy dog, again and again. "
    asked = [(text * 40)[i:n] + str(i) for i, n in enumerate((1500, 1100, 300, 20, 900, 1700))]
    found = {}
    for kernels in ("triton", "flashinfer"):
        with EngineCore(runner(model, kernels), TOKENIZER, kv_tokens=40_000, max_running=64,
                        max_batch_tokens=4096) as core:
            del plans[:]
            found[kernels] = ask(core, [
                request(t, max_tokens=30, temperature=0.0, ignore_eos=True, logprobs=True,
                        top_logprobs=2) for t in asked])
            assert bool(plans) == (kernels == "flashinfer")
    for a, b in zip(found["triton"], found["flashinfer"], strict=True):
        assert a.error is None and b.error is None
        if a.ids != b.ids:
            at = next(i for i, pair in enumerate(zip(a.ids, b.ids, strict=True))
                      if pair[0] != pair[1])
            (first, _), (second, _) = a.top_logprobs[at]
            assert first - second < 0.1, (at, a.top_logprobs[at], b.top_logprobs[at])


def test_what_falls_to_triton(tmp_path: Path, model: Path) -> None:
    small = save_model(tmp_path)  # heads of 16
    for path, dtype in ((small, "bfloat16"), (model, "float32")):
        opened = runner(path, "flashinfer", dtype)
        assert opened._eager._long is None
        opened.allocate(300)
        slots = np.arange(300)
        batch = Batch(slots % 264, slots, slots, [Row(0, 300, slots)], slots[-1:])
        assert not opened.logits(opened.forward(batch)).isnan().any()
        opened.close()
