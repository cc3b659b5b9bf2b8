"""Every family on the device against the CPU's model: logits, greedy text, and the same however a
step is cut and batched.

By default on the CPU with the reference kernels; with the marker `gpu`, on a GPU with Triton's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sglc.errors import ModelError
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.cuda.runner import DeviceRunner
from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import ModelRunner, load_runner
from sglc.runtime.models.config import config_from_hf
from tests.runtime.common import TOKENIZER, ask
from tests.runtime.common import request as asking
from tests.runtime.cuda.test_device_runner import GPU, INTERPRETED, PLACES
from tests.runtime.model_steps import alone, close, run, tokens

VOCAB = 12 if INTERPRETED else 264
HEADS = 2 if INTERPRETED else 4
SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48,
         "num_hidden_layers": 2 if INTERPRETED else 3, "num_attention_heads": HEADS,
         "num_key_value_heads": HEADS // 2, "head_dim": 16, "max_position_embeddings": 512,
         "rms_norm_eps": 1e-5, "rope_theta": 5000.0}
WINDOW = 6 if INTERPRETED else 9
# Rows of (tokens that are the first one's too, own tokens); the first is read in these pieces.
ROWS = ((7, 2), (7, 1), (4, 2), (0, 1)) if INTERPRETED else ((26, 3), (26, 1), (12, 2), (0, 4))
PIECES = (6, 3) if INTERPRETED else (20, 6, 2, 1)
MOE = {"num_experts": 4 if INTERPRETED else 6, "moe_intermediate_size": 24,
       "decoder_sparse_step": 1}
CASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": WINDOW},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 5, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": WINDOW,
              "max_window_layers": 1},
    "qwen2_moe": {"model_type": "qwen2_moe", **MOE, "num_experts_per_tok": 3,
                  "mlp_only_layers": [1], "use_sliding_window": True,
                  "sliding_window": WINDOW, "max_window_layers": 1,
                  "shared_expert_intermediate_size": 40},
    "qwen3_moe": {"model_type": "qwen3_moe", **MOE, "num_experts_per_tok": 2,
                  "norm_topk_prob": True},
    "gemma": {"model_type": "gemma", "num_key_value_heads": 1},
    "gemma2": {"model_type": "gemma2", "query_pre_attn_scalar": 24, "sliding_window": WINDOW,
               "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
}


def save_family(path: Path, name: str, **changes: Any) -> Path:
    """A random small model of the family, whose weights every type can hold."""
    config = {**SMALL, **CASES[name], **changes}
    (path / "config.json").write_text(json.dumps(config))
    random = torch.Generator().manual_seed(1)
    weights = {}
    for label, shape in config_from_hf(config).tensor_shapes().items():
        weight = torch.randn(shape, generator=random) * 0.8 * shape[-1] ** -0.5
        if label.endswith("norm.weight") and "gemma" not in name:
            weight += 1
        weights[label] = weight.bfloat16().float()
    save_file(weights, path / "model.safetensors")
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CASES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
           ) -> tuple[str, Path, ModelRunner]:
    path = save_family(tmp_path_factory.mktemp("family"), request.param)
    return request.param, path, load_runner(path)[0]


def on_device(path: Path, place: tuple[str, str, bool], **options: Any) -> DeviceRunner:
    device, kernels, graphs = place
    return load_device_runner(path, **{
        "device": device, "kernels": kernels, "graphs": graphs, "dtype": "float32",
        "max_tokens": 512, "max_rows": 64, **options})[0]


def step(runner: Any, parts: Any, outputs: Any = None) -> torch.Tensor:
    return run(runner, parts, outputs).cpu()


@pytest.mark.parametrize("place", PLACES)
def test_logits_of_chunks_and_batches(family: tuple[str, Path, ModelRunner],
                                      place: tuple[str, str, bool]) -> None:
    """Rows of one and of many tokens, some with a common prefix, longer than the windows."""
    _, path, cpu = family
    runner = on_device(path, place)
    base = tokens(30, VOCAB)
    rows = [np.concatenate((base[:shared], tokens(own, VOCAB, seed=own))) for shared, own in ROWS]
    want = [alone(cpu, ids) for ids in rows]
    runner.allocate(120)
    slots = np.random.default_rng(2).permutation(120)
    first = slots[:len(rows[0])]
    done = 0
    for n in PIECES:  # the first row in pieces
        got = step(runner, [(rows[0][:done + n], done, first[:done + n])])
        close(got, want[0][done:done + n], 1e-3)
        done += n
    places, parts, used = [], [], len(first)
    for ids, (shared, _) in zip(rows[1:], ROWS[1:], strict=True):  # the others beside each other
        own = slots[used:used + len(ids) - shared]
        used += len(own)
        places.append(np.concatenate((first[:shared], own)))
        parts.append((ids, shared, places[-1]))
    close(step(runner, parts), torch.cat([w[done:] for w, (_, done, _) in zip(
        want[1:], parts, strict=True)]), 1e-3)
    outputs = [0, 2]  # of the same rows' last tokens again
    again = [(ids, len(ids) - 1, where) for ids, where in zip(rows[1:], places, strict=True)]
    close(step(runner, again, outputs), torch.stack([want[1 + i][-1] for i in outputs]), 1e-3)


@pytest.mark.parametrize("place", PLACES[:1] if INTERPRETED else PLACES)
def test_logits_of_some_tokens(family: tuple[str, Path, ModelRunner],
                               place: tuple[str, str, bool]) -> None:
    runner = on_device(family[1], place)
    hidden, ids = torch.randn(3, 32, device=place[0]), np.array([5, 0, VOCAB - 1])
    close(runner.logits_of(hidden, ids), runner.logits(hidden)[:, torch.from_numpy(ids)], 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_random_weights(tmp_path: Path, name: str) -> None:
    config = {**SMALL, **CASES[name]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    runner = on_device(tmp_path, ("cpu", "torch", False), load_format="dummy", dtype="bfloat16")
    logits = alone(runner, tokens(20, VOCAB))
    assert torch.isfinite(logits).all() and logits.std() > 0.01
    assert torch.equal(alone(runner, tokens(20, VOCAB)), logits)
    (tmp_path / "config.json").write_text(json.dumps({**config, "initializer_range": 0.001}))
    runner = on_device(tmp_path, ("cpu", "torch", False), load_format="dummy", dtype="bfloat16")
    assert 0 < alone(runner, tokens(20, VOCAB)).std() < logits.std() / 4
    (tmp_path / "config.json").write_text(json.dumps({**config, "initializer_range": None}))
    runner = on_device(tmp_path, ("cpu", "torch", False), load_format="dummy", dtype="bfloat16")
    assert torch.equal(alone(runner, tokens(20, VOCAB)), logits)
    for wrong in ("wide", True, 0, -0.02, 2, float("nan")):
        (tmp_path / "config.json").write_text(json.dumps({**config, "initializer_range": wrong}))
        with pytest.raises(ModelError, match="initializer_range"):
            on_device(tmp_path, ("cpu", "torch", False), load_format="dummy")


# -- on a GPU ------------------------------------------------------------------------------------

GPU_SIZES = {"hidden_size": 128, "intermediate_size": 352, "head_dim": 64,
             "max_position_embeddings": 2048}


def greedy(runner: Any) -> list[list[int]]:
    """Of rows with a prefix longer and more than what attention reads once for all of them."""
    prefix = tokens(400, 256).tolist()
    prompts = [prefix[:400 if n % 3 else 390] + tokens(1 + n % 5, 256, seed=n).tolist()
               for n in range(24)]
    prompts += [tokens(n, 256, seed=n).tolist() for n in (1, 30, 500)]
    sampling = {"max_tokens": 32, "temperature": 0.0, "ignore_eos": True}
    with EngineCore(runner, TOKENIZER, kv_tokens=12000, max_batch_tokens=300) as core:
        results = ask(core, [asking(p, **sampling) for p in prompts])
    assert all(r.error is None for r in results)
    return [list(r.ids) for r in results]


@pytest.fixture(scope="module", params=CASES)
def larger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
           ) -> tuple[Path, list[list[int]]]:
    """A model, and its greedy tokens on the CPU."""
    path = save_family(tmp_path_factory.mktemp("larger"), request.param, **larger_sizes(
        request.param))
    return path, greedy(load_runner(path)[0])


def larger_sizes(name: str) -> dict[str, Any]:
    case = CASES[name]
    return GPU_SIZES | ({"sliding_window": 200} if case.get("sliding_window") else {})


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@pytest.mark.parametrize("place", GPU)
def test_greedy_text_of_rows_that_share_a_prefix(larger: tuple[Path, list[list[int]]],
                                                 place: tuple[str, str, bool]) -> None:
    path, expected = larger
    assert greedy(on_device(path, place)) == expected


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_errors_at_real_types(tmp_path: Path, name: str, dtype: str, deterministic: bool) -> None:
    """Of mixtures that use all experts, so that rounding does not change who computes what."""
    sizes = larger_sizes(name)
    if "num_experts_per_tok" in CASES[name] or name == "mixtral":
        sizes["num_experts_per_tok"] = 5 if name == "mixtral" else 6
    path = save_family(tmp_path, name, **sizes)
    cpu = load_runner(path)[0]
    runner = on_device(path, ("cuda", "triton", True), dtype=dtype, deterministic=deterministic)
    ids = tokens(300, VOCAB)
    want = alone(cpu, ids)
    limit = float(want.abs().max()) * {"bfloat16": 2e-2, "float32": 1e-4}[dtype]
    runner.allocate(300)
    got = [step(runner, [(ids[:290], 0, np.arange(290))])]
    for n in range(290, 300):
        got.append(step(runner, [(ids[:n + 1], n, np.arange(n + 1))]))
    close(torch.cat(got), want, limit)
