"""How weights are read: once each, into memory of the model's own, counted and timed."""

from __future__ import annotations

import io
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sglc
from bench.model_loading import write_hf_copy
from sglc.runtime.model_runner import load_runner, open_model
from sglc.runtime.weights import metered
from sglc.runtime.weights.metered import LoadReport, MeteredWeights
from tests.runtime.model_steps import alone, tokens

CONFIG = ('{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, '
          '"intermediate_size": 24, "num_attention_heads": 2}')


class Weights:
    """A source that counts its reads."""

    path, mapped = Path("somewhere"), False

    def __init__(self) -> None:
        self.reads: list[str] = []

    def names(self) -> Set[str]:
        return {"a", "b"}

    def read(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return torch.zeros(5)

    def place(self, name: str) -> str:
        return f"somewhere/{name}"

    def n_bytes(self, name: str) -> int:
        return {"a": 1000, "b": 234}[name]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("slow", [False, True])
def test_progress_is_shown_of_long_loads(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    stream, source = Terminal(), Weights()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(metered, "_SILENT_SECONDS", 0.0 if slow else 60.0)
    with MeteredWeights(source) as weights:
        for name in ("a", "b"):
            assert weights.read(name).shape == (5,)
    assert source.reads == ["a", "b"]
    assert weights.report.bytes == 1234 and weights.report.seconds > 0
    assert ("weights" in stream.getvalue()) == slow
    assert str(LoadReport(2_500_000_000, 0.5)) == "2.50 GB in 0.50 s (5.00 GB/s)"


def test_weights_are_the_models_own(tmp_path: Path) -> None:
    """What happens to the file after loading does not matter."""
    (tmp_path / "config.json").write_text(CONFIG)
    shapes = {"model.embed_tokens": (32, 16), "lm_head": (32, 16), "model.norm": (16,)} | {
        f"model.layers.0.{name}": shape for name, shape in {
            "input_layernorm": (16,), "post_attention_layernorm": (16,),
            **{f"self_attn.{p}_proj": (16, 16) for p in "qkvo"}, "mlp.gate_proj": (24, 16),
            "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24)}.items()}
    torch.manual_seed(0)
    weights = {f"{n}.weight": torch.randn(s) for n, s in shapes.items()}
    file = tmp_path / "model.safetensors"
    save_file(weights, file)
    ids = tokens(9, 32)
    for kernels in ("auto", "torch"):
        runner, _ = load_runner(tmp_path, kernels=kernels)
        assert runner.loaded is not None
        assert runner.loaded.bytes == sum(w.nbytes for w in weights.values())
        before = alone(runner, ids)
        data = file.read_bytes()
        with file.open("r+b") as f:  # the same file: a mapping would see it
            f.write(bytes(len(data)))
        assert torch.equal(alone(runner, ids), before)
        file.write_bytes(data)


def test_an_engine_says_how_it_was_loaded(engine: Any) -> None:
    info = engine.info()
    assert info["family"] == "llama" and info["device"] == "cpu" and info["dtype"] == "float32"
    assert info["model"].endswith(".gguf") and info["kv_tokens"] == 8192
    assert 0 < info["load_seconds"] < 60 and "GB in" in info["load"]
    assert info["load_gb_per_second"] > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_a_safetensors_copy_gives_the_same_text(engine: Any, tmp_path: Path, shards: int) -> None:
    write_hf_copy(engine.model_path, tmp_path, shards)
    prompts = ["The capital of France is", "def fibonacci(n):\n", "1, 2, 3,"]
    sampling = {"max_new_tokens": 24, "temperature": 0.0}
    with sglc.Engine(tmp_path, device="cpu", kv_tokens=2048) as copy:
        assert [r.text for r in copy.generate(prompts, sampling=sampling)] == \
            [r.text for r in engine.generate(prompts, sampling=sampling)]


def test_sources_name_every_tensor_once(engine: Any) -> None:
    source, config, _ = open_model(engine.model_path)
    assert set(config.tensor_shapes()) == set(source.names())
    name = "model.layers.3.self_attn.q_proj.weight"
    assert source.place(name) == str(engine.model_path)
    assert source.n_bytes(name) * 8 == np.prod(config.tensor_shapes()[name]) * 5  # Q4_1
