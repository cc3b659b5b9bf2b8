"""Every family against transformers, on random small models: logits, greedy text, and the same
results however a step is cut and batched; from Hugging Face folders and from GGUF files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import ModelRunner, load_runner
from tests.runtime.common import TOKENIZER, ask, request
from tests.runtime.gguf_writing import write_gguf
from tests.runtime.model_steps import alone, close, expected_logits, run, tokens

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
         "rms_norm_eps": 1e-5, "pad_token_id": None}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 5000.0, **more}}


# name -> (transformers' model, what its configuration says)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama linear": ("Llama", rope("linear", factor=4.0)),
    "llama dynamic": ("Llama", {**rope("dynamic", factor=2.0), "max_position_embeddings": 48}),
    "llama3": ("Llama", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=32)),
    "llama yarn": ("Llama", rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "mistral": ("Mistral", {"sliding_window": 9, "head_dim": 16}),
    "mixtral": ("Mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2,
                            "sliding_window": None}),
    "qwen": ("Qwen2", {"num_key_value_heads": 4}),  # saved as the first Qwen's code has it
    "qwen2": ("Qwen2", {}),
    "qwen2 windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 6,
                                "max_window_layers": 1}),
    "qwen2_moe": ("Qwen2Moe", {"num_experts": 6, "num_experts_per_tok": 3,
                               "moe_intermediate_size": 24, "mlp_only_layers": [1],
                               "shared_expert_intermediate_size": 40}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3_moe": ("Qwen3Moe", {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2,
                               "moe_intermediate_size": 24, "norm_topk_prob": True}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 9,
                          "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
}
# What such files cannot say: dense layers among experts, another scale of the scores.
GGUF_CHANGES: dict[str, dict[str, Any]] = {
    "qwen2_moe": {"mlp_only_layers": []}, "gemma2": {"query_pre_attn_scalar": 16}}
GGUF_CASES = ("llama linear", "llama3", "llama yarn", "mistral", "mixtral", "qwen2", "qwen2_moe",
              "qwen3", "qwen3_moe", "gemma", "gemma2")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices are too small to share
    yield
    torch.set_num_threads(before)


def save_random(path: Path, name: str, **more: Any) -> Any:
    """A random model of the case at `path`; transformers' model."""
    kind, changes = CASES[name]
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**SMALL | changes | more)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    for label, p in model.named_parameters():  # larger than by default, so that errors show
        norm = label.endswith("norm.weight") and not kind.startswith("Gemma")
        torch.nn.init.normal_(p, mean=float(norm), std=0.25)
    model.save_pretrained(path)
    if name == "qwen":
        as_first_qwen(path)
    return model


def as_first_qwen(path: Path) -> None:
    """The names that the first Qwen's own code gives to weights and fields."""
    config = json.loads((path / "config.json").read_text())
    weights = load_file(path / "model.safetensors")
    config |= {"model_type": "qwen", "architectures": ["QWenLMHeadModel"], "no_bias": True,
               "intermediate_size": 2 * config["intermediate_size"], "seq_length": 200,
               "kv_channels": 8, "layer_norm_epsilon": config.pop("rms_norm_eps"),
               "rotary_emb_base": config.pop("rope_parameters")["rope_theta"]}
    renamed = {"transformer.wte.weight": weights["model.embed_tokens.weight"],
               "transformer.ln_f.weight": weights["model.norm.weight"],
               "lm_head.weight": weights["lm_head.weight"]}
    for n in range(config["num_hidden_layers"]):
        at, own = f"model.layers.{n}", f"transformer.h.{n}"
        for part in ("weight", "bias"):
            renamed[f"{own}.attn.c_attn.{part}"] = torch.cat(
                [weights[f"{at}.self_attn.{p}_proj.{part}"] for p in "qkv"])
        for theirs, ours in (("ln_1", "input_layernorm"), ("ln_2", "post_attention_layernorm"),
                             ("attn.c_proj", "self_attn.o_proj"), ("mlp.w1", "mlp.up_proj"),
                             ("mlp.w2", "mlp.gate_proj"), ("mlp.c_proj", "mlp.down_proj")):
            renamed[f"{own}.{theirs}.weight"] = weights[f"{at}.{ours}.weight"]
    (path / "config.json").write_text(json.dumps(config))
    save_file(renamed, path / "model.safetensors")


@pytest.fixture(scope="module", params=CASES, ids=str)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
           ) -> tuple[str, Path, Any, ModelRunner]:
    path = tmp_path_factory.mktemp("family")
    model = save_random(path, request.param)
    return request.param, path, model, load_runner(path)[0]


@torch.no_grad()
def greedy(model: Any, ids: np.ndarray, new: int) -> list[int]:
    """transformers' greedy continuation, with its cache."""
    step, out, past = torch.tensor([ids.tolist()]), [], None
    for _ in range(new):
        given = model(step, past_key_values=past, use_cache=True)
        past, step = given.past_key_values, given.logits[:, -1:].argmax(-1)
        out.append(int(step))
    return out


# -- against transformers ------------------------------------------------------------------------


def test_logits_and_greedy_text(family: tuple[str, Path, Any, ModelRunner]) -> None:
    _, _, model, runner = family
    ids = tokens(40, 264)
    close(alone(runner, ids), expected_logits(model, ids), 1e-3)
    runner.allocate(80)
    got, done = list(ids), 0
    while len(got) < 72:
        logits = run(runner, [(np.array(got), done, np.arange(len(got)))])
        done = len(got)
        got.append(int(logits[-1].argmax()))
    assert got[40:] == greedy(model, ids, 32)


# -- one step, many shapes -----------------------------------------------------------------------


def test_chunks_equal_at_once(family: tuple[str, Path, Any, ModelRunner]) -> None:
    runner, ids = family[3], tokens(180, 264)
    expected = alone(runner, ids)
    for cuts, slots in (([1, 4, 9, 30, 130, 6], np.arange(180)),
                        ([70, 10, 100], np.random.default_rng(3).permutation(180))):
        runner.allocate(180)
        done, got = 0, []
        for n in cuts:
            got.append(run(runner, [(ids[:done + n], done, slots[:done + n])]))
            done += n
        close(torch.cat(got), expected)


def test_batch_equals_single(family: tuple[str, Path, Any, ModelRunner]) -> None:
    runner = family[3]
    sizes = [(0, 1), (30, 1), (31, 1), (5, 1), (12, 4), (3, 4), (0, 20), (40, 9), (40, 9)]
    sequences = [tokens(done + n, 264, seed=i) for i, (done, n) in enumerate(sizes)]
    expected = [alone(runner, ids)[done:]
                for ids, (done, _) in zip(sequences, sizes, strict=True)]
    total = sum(map(len, sequences))
    for slots in (np.arange(total), np.random.default_rng(1).permutation(total)):
        runner.allocate(total)
        places = np.split(slots, np.cumsum([len(s) for s in sequences])[:-1])
        parts = [(ids, done, place) for ids, (done, _), place
                 in zip(sequences, sizes, places, strict=True)]
        for ids, done, place in parts:
            if done:
                run(runner, [(ids[:done], 0, place[:done])], outputs=[])
        close(run(runner, parts), torch.cat(expected))


def test_logits_of_some_tokens(family: tuple[str, Path, Any, ModelRunner]) -> None:
    runner = family[3]
    hidden, ids = torch.randn(3, 32), np.array([5, 0, 99])
    close(runner.logits_of(hidden, ids), runner.logits(hidden)[:, ids])


def test_an_engine_with_windows(tmp_path: Path) -> None:
    """Scheduler, chunks and shared prefixes, on a model whose tokens see few keys."""
    model = save_random(tmp_path, "mistral")
    prefix = tokens(50, 256).tolist()
    prompts = [prefix + tokens(n, 256, seed=n).tolist() for n in (1, 2, 7, 30)]
    with EngineCore(load_runner(tmp_path)[0], TOKENIZER, kv_tokens=600,
                    max_batch_tokens=24) as core:
        for _ in range(2):
            results = ask(core, [request(p, max_tokens=16, temperature=0.0, ignore_eos=True)
                                 for p in prompts])
            for prompt, result in zip(prompts, results, strict=True):
                assert result.error is None
                assert list(result.ids) == greedy(model, np.array(prompt), 16)
        assert core.stats().cached_tokens > 3 * len(prefix)


# -- GGUF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GGUF_CASES)
def test_gguf_equals_the_folder(tmp_path: Path, name: str) -> None:
    model = save_random(tmp_path, name, **GGUF_CHANGES.get(name, {}))
    runner, _ = load_runner(write_gguf(tmp_path / "model.gguf", model))
    ids = tokens(70, 264)
    close(alone(runner, ids), alone(load_runner(tmp_path)[0], ids), 5e-4)


# -- what belongs to configurations alone ---------------------------------------------------------


def test_context_lengths() -> None:
    from sglc.runtime.models.config import config_from_hf

    base = {**SMALL, "model_type": "llama"}

    def length(kind: str, **more: Any) -> int:
        return config_from_hf({**base, **rope(kind, **more)}).context_length

    assert length("default") == 256
    assert length("linear", factor=4.0) == length("dynamic", factor=4.0) == 1024
    assert length("yarn", factor=4.0, original_max_position_embeddings=128) == 512
    assert length("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=64) == 256


def test_names_of_families(family: tuple[str, Path, Any, ModelRunner]) -> None:
    name, _, _, runner = family
    assert runner.config.family == name.split()[0].replace("llama3", "llama")
