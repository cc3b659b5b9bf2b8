"""The Llama runner against transformers, and its results under every way to batch a step."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sglc.errors import ModelError
from sglc.runtime.batch import Batch, Row
from sglc.runtime.model_runner import ModelRunner, load_runner
from sglc.runtime.models.config import config_from_gguf, config_from_hf
from sglc.runtime.models.llama_gguf import LlamaGGUF
from sglc.runtime.weights.fetch import fetch_default_model
from sglc.runtime.weights.gguf import GGUFFile
from tests.runtime.model_steps import alone, close, expected_logits, run, tokens

transformers = pytest.importorskip("transformers")

TINY = {"model_type": "llama", "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 5000.0}
SHAPES: dict[str, dict[str, Any]] = {
    "gqa": {}, "tied": {"tie_word_embeddings": True}, "mha": {"num_key_value_heads": 6},
    "mqa": {"num_key_value_heads": 1}, "wide heads": {"head_dim": 16},
}


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def save_random(path: Path, **changes: Any) -> Any:
    """A random tiny model in Hugging Face's form at `path`; the transformers model."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        **({k: v for k, v in TINY.items() if k != "rope_theta"} | changes),
        rope_parameters={"rope_type": "default", "rope_theta": TINY["rope_theta"]})
    model = transformers.LlamaForCausalLM(config).float().eval()
    for p in model.parameters():  # larger than the default initialisation, so that errors show
        torch.nn.init.normal_(p, mean=float(p.dim() == 1), std=0.2)
    model.save_pretrained(path)
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("tiny")
    return path, save_random(path)


@pytest.fixture(scope="module")
def runner(tiny: tuple[Path, Any]) -> ModelRunner:
    return load_runner(tiny[0])[0]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return fetch_default_model()


# -- against transformers ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_logits_equal_transformers(tmp_path: Path, shape: str, kernels: str) -> None:
    model = save_random(tmp_path, **SHAPES[shape])
    runner, about = load_runner(tmp_path, kernels=kernels)
    assert about == {"folder": str(tmp_path)}
    assert (runner.vocab_size, runner.context_length) == (96, 512)
    ids = tokens(150)
    got = alone(runner, ids)
    assert got.dtype is torch.float32
    close(got, expected_logits(model, ids), 1e-3)
    close(alone(runner, ids[:1]), expected_logits(model, ids[:1]), 1e-3)


def test_shards_and_old_rope_fields(tiny: tuple[Path, Any], tmp_path: Path,
                                    runner: ModelRunner) -> None:
    weights = load_file(tiny[0] / "model.safetensors")
    names = sorted(weights)
    halves = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, part in halves.items():
        save_file({n: weights[n] for n in part}, tmp_path / file)
    index = {n: file for file, part in halves.items() for n in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"rope_scaling": None}))
    ids = tokens(20)
    assert torch.equal(alone(load_runner(tmp_path)[0], ids), alone(runner, ids))


def test_bfloat16_weights_of_a_file(tiny: tuple[Path, Any], tmp_path: Path) -> None:
    """A checkpoint in bfloat16 computes in float32 by default."""
    weights = load_file(tiny[0] / "model.safetensors")
    save_file({n: w.bfloat16() for n, w in weights.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((tiny[0] / "config.json").read_text())
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = tokens(20)
    close(alone(load_runner(tmp_path)[0], ids), expected_logits(model, ids), 1e-3)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_bfloat16_is_explicit_and_near(tiny: tuple[Path, Any], kernels: str) -> None:
    runner, _ = load_runner(tiny[0], dtype="bfloat16", kernels=kernels)
    ids = tokens(40)
    expected = expected_logits(tiny[1], ids)
    got = alone(runner, ids)
    assert got.dtype is torch.float32
    assert 1e-4 < (got - expected).abs().max() / expected.abs().max() < 4e-2
    steps = torch.cat([run(runner, [(ids[:i + 1], i, np.arange(i + 1))]) for i in range(40)])
    assert (got - steps).abs().max() < 2e-2 * expected.abs().max()


def test_smollm2_equals_transformers(smollm2: Path) -> None:
    """On the default model's file; transformers gets the weights through its own names."""
    begin = time.perf_counter()
    runner, metadata = load_runner(smollm2)
    runner.allocate(64)
    ids = np.array([1, 9690, 198, 504, 3575, 282, 4649, 314, 260, 1277, 5, 49151])
    got = run(runner, [(ids, 0, np.arange(len(ids)))])
    assert time.perf_counter() - begin < 30  # seconds; about one on an idle machine
    assert metadata["general.architecture"] == "llama"
    file = GGUFFile(smollm2)
    c = config_from_gguf(file.metadata, {n: t.shape for n, t in file.tensors.items()})
    source = LlamaGGUF(file, c)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, rms_norm_eps=c.rms_eps,
            intermediate_size=c.intermediate_size, num_hidden_layers=c.layers,
            num_attention_heads=c.heads, num_key_value_heads=c.kv_heads,
            max_position_embeddings=c.context_length, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta}))
    model.load_state_dict({n: source.read(n) for n in source.names()}, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    close(got, expected_logits(model.eval(), ids), 1e-3)
    greedy, slots = list(ids), np.arange(64)
    for _ in range(8):  # decode steps agree too
        greedy.append(int(got[-1].argmax()))
        got = run(runner, [(np.array(greedy), len(greedy) - 1, slots[:len(greedy)])])
    close(got, expected_logits(model, greedy)[-1:], 1e-3)


@pytest.mark.slow
def test_smollm2_equals_transformers_gguf(smollm2: Path) -> None:
    """The same through transformers' own GGUF reader."""
    pytest.importorskip("accelerate")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32)
    runner, _ = load_runner(smollm2)
    ids = tokens(40, 49152)
    close(alone(runner, ids), expected_logits(model, ids), 1e-3)


# -- one step, many shapes -----------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 1, 40, 2, 150], [17, 200, 16], [128, 129]], ids=str)
def test_chunks_equal_at_once(runner: ModelRunner, cuts: list[int]) -> None:
    ids = tokens(sum(cuts))
    expected = alone(runner, ids)
    for slots in (np.arange(len(ids)), np.random.default_rng(3).permutation(len(ids))):
        runner.allocate(len(ids))
        done, got = 0, []
        for n in cuts:
            got.append(run(runner, [(ids[:done + n], done, slots[:done + n])]))
            done += n
        close(torch.cat(got), expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40)), min_size=1, max_size=12),
       st.booleans(), st.randoms(use_true_random=False))
def test_batch_equals_single(runner: ModelRunner, sizes: list[tuple[int, int]], scatter: bool,
                             random: Any) -> None:
    """Rows of any lengths in one step give what each gives alone, wherever their slots are."""
    sizes = [(done, n if random.random() < 0.5 else 1) for done, n in sizes]
    sequences = [tokens(done + n, seed=i) for i, (done, n) in enumerate(sizes)]
    expected = [alone(runner, ids)[done:]
                for ids, (done, _) in zip(sequences, sizes, strict=True)]
    total = sum(map(len, sequences))
    runner.allocate(total + 1)
    slots = np.arange(total)
    if scatter:
        slots = np.random.default_rng(total).permutation(total)
    places = np.split(slots, np.cumsum([len(s) for s in sequences])[:-1])
    for ids, (done, _), place in zip(sequences, sizes, places, strict=True):
        if done:
            run(runner, [(ids[:done], 0, place[:done])])
    got = run(runner, [(ids, done, place) for ids, (done, _), place
                       in zip(sequences, sizes, places, strict=True)])
    close(got, torch.cat(expected))


def test_rows_share_slots_of_earlier_steps(runner: ModelRunner) -> None:
    prefix, tails = tokens(70), [tokens(n, seed=n) for n in (1, 1, 5, 5, 30, 2)]
    expected = [alone(runner, np.concatenate((prefix, t)))[len(prefix):] for t in tails]
    runner.allocate(200)
    shared = np.arange(70) * 2
    run(runner, [(prefix, 0, shared)])
    free, parts = iter(range(1, 200, 2)), []
    for tail in tails:
        slots = np.concatenate((shared, [next(free) for _ in tail]))
        parts.append((np.concatenate((prefix, tail)), 70, slots))
    close(run(runner, parts), torch.cat(expected))


def test_rows_share_slots_of_the_same_step(runner: ModelRunner) -> None:
    """A trie in one step: a prefix, and rows that continue it, in any order of rows."""
    prefix, tails = tokens(20), [tokens(n, seed=n) for n in (1, 3, 3, 1, 18)]
    expected = [alone(runner, np.concatenate((prefix, t)))[len(prefix):] for t in tails]
    whole = alone(runner, prefix)
    for first in (True, False):
        runner.allocate(100)
        root = [(prefix, 0, np.arange(20))]
        free, parts = 20, []
        for tail in tails:
            slots = np.concatenate((np.arange(20), np.arange(free, free + len(tail))))
            parts.append((np.concatenate((prefix, tail)), 20, slots))
            free += len(tail)
        got = run(runner, root + parts if first else parts + root)
        close(got, torch.cat([whole, *expected] if first else [*expected, whole]))


def test_outputs_are_chosen_and_repeated(runner: ModelRunner) -> None:
    ids = tokens(30)
    expected = alone(runner, ids)
    runner.allocate(60)
    parts = [(ids, 0, np.arange(30)), (ids[:7], 0, np.arange(30, 37)),
             (ids[:1], 0, np.arange(40, 41))]
    got = run(runner, parts, outputs=[37, 36, 29, 29, 3, 30])
    close(got, expected[[0, 6, 29, 29, 3, 0]])


def test_no_outputs_still_writes(runner: ModelRunner) -> None:
    ids = tokens(30)
    expected = alone(runner, ids)[-1:]
    runner.allocate(30)
    assert run(runner, [(ids[:29], 0, np.arange(29))], outputs=[]).shape == (0, 96)
    close(run(runner, [(ids, 29, np.arange(30))]), expected)


def test_long_rows_are_read_in_place(runner: ModelRunner) -> None:
    """Rows past the limits of grouping: beside each other, in runs and scattered."""
    ids = tokens(1500)
    expected = alone(runner, ids)
    for slots in (np.arange(3000), np.random.default_rng(0).permutation(3000)):
        runner.allocate(3000)
        a, b = slots[:1500], slots[1500:]
        for place in (a, b):
            run(runner, [(ids[:1400], 0, place[:1400])], outputs=[])
        got = run(runner, [(ids[:1401], 1400, a[:1401]), (ids[:1500], 1400, b)])
        close(got, torch.cat((expected[1400:1401], expected[1400:])))


def test_hidden_states_may_be_kept_and_written(runner: ModelRunner) -> None:
    ids = tokens(9)
    runner.allocate(20)
    batch = Batch(ids, np.arange(9), np.arange(9), [Row(0, 9, np.arange(9))], np.arange(9))
    first = runner.forward(batch)
    copy = first.clone()
    runner.forward(Batch(ids[::-1].copy(), np.arange(9), np.arange(9, 18),
                         [Row(0, 9, np.arange(9, 18))], np.arange(9)))
    assert torch.equal(first, copy)
    logits = runner.logits(torch.stack([first[3], first[8]]))
    close(logits, runner.logits(first)[[3, 8]])
    first.zero_()
    logits.add_(1)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "reason"), [
    ({"model_type": "mamba"}, "model type is 'mamba'.*llama, mistral, mixtral, qwen"),
    ({"model_type": None}, "model type"),
    ({"model_type": ["llama"]}, "model type"),
    ({"attention_bias": "yes"}, "attention_bias"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"sliding_window": 4096}, "sliding_window"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling: there is no factor"),
    ({"rope_scaling": {"type": "linear", "factor": 0.0}}, "factor is 0.0"),
    ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "'longrope' is not supported"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                          "high_freq_factor": 1.0}}, "low_freq_factor"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}, "rope_type": 3}},
     "rope_type"),
    ({"rope_parameters": 3}, "rope_parameters"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ({"num_key_value_heads": 4}, "do not divide"),
    ({"hidden_size": "48"}, "hidden_size"),
    ({"num_hidden_layers": None}, "num_hidden_layers"),
    ({"num_attention_heads": 0}, "head"),
    ({"rope_theta": "x"}, "rope_theta"),
])
def test_refused_configurations(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as e:
        config_from_hf(TINY | changes, "there/config.json")
    assert e.value.code == "SGLC504"
    assert "there/config.json" in str(e.value)


GGUF_TINY = {"general.architecture": "llama", "llama.embedding_length": 48,
             "llama.feed_forward_length": 80, "llama.block_count": 2,
             "llama.attention.head_count": 6, "llama.attention.head_count_kv": 2,
             "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 5000.0,
             "llama.context_length": 512}


@pytest.mark.parametrize(("changes", "reason"), [
    ({"general.architecture": "mamba"}, "architecture is 'mamba'; known are llama, qwen2"),
    ({"llama.expert_count": 8}, "expert_used_count"),
    ({"llama.expert_count": 2, "llama.expert_used_count": 3}, "3 of 2 experts"),
    ({"llama.rope.scaling.type": "longrope"}, "rope.scaling.type"),
    ({"llama.rope.scaling.factor": "4"}, "rope.scaling.factor"),
    ({"llama.rope.dimension_count": 4}, "dimension_count"),
    ({"llama.attention.value_length": 4}, "value_length"),
    ({"llama.attention.head_count_kv": [2, 2]}, "head_count_kv"),
    ({"llama.block_count": 1 << 40}, "layers"),
    ({"llama.block_count": None}, "block_count"),
])
def test_refused_gguf_metadata(changes: dict[str, Any], reason: str) -> None:
    shapes = {"token_embd.weight": (96, 48)}
    assert config_from_gguf(GGUF_TINY, shapes) == config_from_hf(TINY | {
        "tie_word_embeddings": True})
    metadata = {k: v for k, v in (GGUF_TINY | changes).items() if v is not None}
    with pytest.raises(ModelError, match=reason) as e:
        config_from_gguf(metadata, shapes)
    assert e.value.code == "SGLC504"


def test_weights_that_do_not_fit(tiny: tuple[Path, Any], tmp_path: Path) -> None:
    weights = load_file(tiny[0] / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    norm, bias = "model.norm.weight", "model.layers.0.self_attn.q_proj.bias"
    for changed, reason in (
            ({k: v for k, v in weights.items() if k != norm}, "missing.*model.norm"),
            (weights | {bias: torch.zeros(48)}, "not llama's.*q_proj.bias"),
            (weights | {norm: torch.zeros(47)}, "shape"),
            (weights | {norm: torch.zeros(48, dtype=torch.int32)}, "type")):
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=reason):
            load_runner(tmp_path)


def test_paths_that_are_no_model(tmp_path: Path, tiny: tuple[Path, Any]) -> None:
    begin = time.perf_counter()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "outside" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../pickled/pytorch_model.bin"}}))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "cut" / "model.safetensors").write_bytes(
        (tiny[0] / "model.safetensors").read_bytes()[:1000])
    (tmp_path / "text.gguf").write_text("hello " * 20)
    for name in ("nothing", "", "pickled", "outside", "bad", "cut", "text.gguf"):
        with pytest.raises(ModelError) as e:
            load_runner(tmp_path / name)
        assert e.value.code == "SGLC504"
    for options in ({"dtype": "float8"}, {"device": "tpu"}, {"kernels": "fast"}):
        with pytest.raises(ModelError, match="SGLC504"):
            load_runner(tiny[0], **options)
    assert time.perf_counter() - begin < 1


def test_closed_runner(tiny: tuple[Path, Any]) -> None:
    runner, _ = load_runner(tiny[0])
    ids = tokens(3)
    alone(runner, ids)
    runner.close()
    with pytest.raises(ModelError, match="closed"):
        alone(runner, ids)
