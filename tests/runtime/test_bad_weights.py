"""Weights and configurations that are damaged, incomplete or not supported: a coded error that
names the file and the field, soon; never a crash."""

from __future__ import annotations

import json
import random
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sglc.errors import ModelError
from sglc.runtime.model_runner import load_runner
from sglc.runtime.models.hf_config import FAMILIES
from sglc.runtime.weights.safetensors_file import SafetensorsFile
from tests.runtime.gguf_writing import write_gguf

transformers = pytest.importorskip("transformers")

SECONDS = 2.0  # of the processor, that a refusal takes at most


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of experts and windows in three shards, and the same as GGUF."""
    path = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(transformers.MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2, sliding_window=8,
        max_position_embeddings=64))
    model.save_pretrained(path)
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {f"model-{k + 1:05}-of-00003.safetensors": names[k::3] for k in range(3)}
    for file, part in parts.items():
        save_file({n: weights[n] for n in part}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {n: f for f, part in parts.items() for n in part}}))
    write_gguf(path.parent / f"{path.name}.gguf", model)
    load_runner(path)
    load_runner(path.parent / f"{path.name}.gguf")
    return path


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "model"))


def refused(path: Path, *names: str) -> ModelError:
    """Loading is refused in time, and the error names all of these."""
    begin = time.process_time()
    with pytest.raises(ModelError) as e:
        load_runner(path)
    assert time.process_time() - begin < SECONDS
    assert e.value.code == "SGLC504"
    for name in names:
        assert name in str(e.value)
    return e.value


def change_json(path: Path, **changes: Any) -> None:
    """Sets fields; ... removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))


# -- folders -------------------------------------------------------------------------------------


def test_missing_parts(copy: Path) -> None:
    shard = copy / "model-00002-of-00003.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    refused(copy, shard.name, "missing")
    shard.write_bytes(data[:-7])
    refused(copy, shard.name, "truncated", "tensor")
    shard.write_bytes(data)
    index = copy / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    change_json(index, weight_map=names | {"model.norm.weight": shard.name, "lm_head.weight":
                                           shard.name})
    refused(copy, shard.name, "model.safetensors.index.json")
    change_json(index, weight_map={n: f for n, f in names.items() if n != "model.norm.weight"})
    refused(copy, "model.norm.weight", str(copy))
    change_json(index, weight_map=names | {"a.b": "../x.safetensors"})
    refused(copy, "../x.safetensors", "a.b")
    change_json(index, weight_map=...)
    refused(copy, "index.json", "weight_map")
    index.unlink()  # without an index, all files there are
    load_runner(copy)
    for file in copy.glob("*.safetensors"):
        file.unlink()
    refused(copy, "no model.safetensors")


def test_wrong_tensors(copy: Path) -> None:
    shard = copy / "model-00001-of-00003.safetensors"
    weights = load_file(shard)
    name = next(n for n in weights if weights[n].dim() == 2)
    for bad, words in ((weights[name][:-1], "shape"), (weights[name].int(), "int32"),
                       (weights[name].flatten(), "shape")):
        save_file(weights | {name: bad.contiguous()}, shard)
        refused(copy, shard.name, words)
    index = copy / "model.safetensors.index.json"
    save_file(weights | {"extra.bias": torch.zeros(3)}, shard)
    change_json(index, weight_map=json.loads(index.read_text())["weight_map"] | {
        "extra.bias": shard.name})
    refused(copy, "extra.bias", shard.name)


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "num_hidden_layers",
                                   "vocab_size", "intermediate_size", "model_type"])
def test_configurations_without_a_field(copy: Path, field: str) -> None:
    change_json(copy / "config.json", **{field: ...})
    refused(copy, "config.json", field.replace("_", " ") if field == "model_type" else field)


@pytest.mark.parametrize(("field", "value"), [
    ("hidden_size", "16"), ("hidden_size", 1 << 40), ("num_hidden_layers", 1 << 20),
    ("num_hidden_layers", 2.5), ("num_local_experts", 1 << 30), ("num_experts_per_tok", 3),
    ("sliding_window", -1), ("sliding_window", True), ("vocab_size", 0), ("vocab_size", -5),
    ("head_dim", 7), ("rms_norm_eps", 0), ("rms_norm_eps", float("nan")),
    ("rope_parameters", {"rope_type": "yarn", "factor": float("inf")}),
    ("rope_parameters", {"rope_type": "dynamic", "factor": -1}), ("max_position_embeddings", 0),
    ("layer_types", ["full_attention"]), ("layer_types", ["full_attention", "chunked"]),
    ("tie_word_embeddings", 1), ("hidden_act", "relu"), ("model_type", "gpt_neox"),
])
def test_configurations_with_a_wrong_field(copy: Path, field: str, value: Any) -> None:
    change_json(copy / "config.json", **{field: value})
    refused(copy, "config.json")


def test_a_size_that_only_the_weights_disprove(copy: Path) -> None:
    change_json(copy / "config.json", head_dim=1 << 30)  # no memory is taken for it
    refused(copy, "q_proj.weight", "model-00002-of-00003.safetensors", str(1 << 31))


def test_quantization_that_is_not_supported(copy: Path) -> None:
    change_json(copy / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    refused(copy, "config.json", "quantization_config", "bitsandbytes")


def test_unknown_architectures_are_told_the_known_ones(copy: Path) -> None:
    change_json(copy / "config.json", model_type="rwkv", architectures=["RwkvForCausalLM"],
                auto_map={"AutoModelForCausalLM": "modeling.Rwkv"})
    (copy / "modeling.py").write_text("raise SystemError('was run')")
    refused(copy, "rwkv", "RwkvForCausalLM", *FAMILIES)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, "\x00", '{"a": 1e999}'])
def test_texts_that_are_no_configuration(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    refused(copy, "config.json")


# -- safetensors files ---------------------------------------------------------------------------


def stored(header: Any, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "0 bytes"), (b"1234567", "truncated"), (b"\xff" * 40, "does not fit"),
    (struct.pack("<Q", 1 << 40) + bytes(50), "does not fit"), (stored(b"{]"), "not JSON"),
    (stored(b"\xff\xfe{}"), "not JSON"), (stored(b"[" * 5000), "not JSON"),
    (stored([1]), "not a JSON object"), (stored({"w": 3}), "entry of tensor 'w'"),
    (stored(b'{"w": 1, "w": 2}'), "twice"), (stored(entry(dtype="F31")), "dtype of tensor 'w'"),
    (stored(entry(dtype=["F32"])), "dtype"), (stored(entry(shape=[2, -3])), "shape of tensor"),
    (stored(entry(shape=[2, 3.0])), "shape"), (stored(entry(shape=[1 << 63])), "shape"),
    (stored(entry(shape=[True, 6])), "shape"), (stored(entry(shape=[1] * 9)), "shape"),
    (stored(entry(shape=[2, 4])), "has 24 bytes"), (stored(entry(shape=None)), "shape"),
    (stored(entry(data_offsets=[0])), "data_offsets"), (stored(entry(data_offsets=[24, 0])), "24"),
    (stored(entry(data_offsets=[48, 72])), "64 bytes of data: it is truncated"),
    (stored(entry(shape=[1 << 40, 1 << 40])), "has 24 bytes"),
    (stored(entry() | {"v": entry()["w"] | {"data_offsets": [20, 44]}}), "'w' and 'v' overlap"),
])
def test_bad_safetensors(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=reason) as e:
        SafetensorsFile(path)
    assert e.value.code == "SGLC504" and "bad.safetensors" in str(e.value)


def test_safetensors_equal_their_own_reader(tmp_path: Path) -> None:
    """Every type, an odd header length, empty tensors and scalars."""
    generator = torch.Generator().manual_seed(0)
    weights = {str(t).removeprefix("torch."): (torch.randn(3, 5, generator=generator) * 9).to(t)
               for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64,
                         torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
                         torch.float8_e4m3fn, torch.float8_e5m2)}
    weights |= {"none": torch.empty(0, 4), "one": torch.tensor(2.5)}
    save_file(weights, tmp_path / "all.safetensors", metadata={"x": "y"})
    data = (tmp_path / "all.safetensors").read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    odd = struct.pack("<Q", n + 3) + data[8:8 + n] + b"   " + data[8 + n:]
    (tmp_path / "odd.safetensors").write_bytes(odd)
    for name in ("all.safetensors", "odd.safetensors"):
        file = SafetensorsFile(tmp_path / name)
        assert file.tensors.keys() == weights.keys()
        for key, expected in weights.items():
            got = file.read(key)
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            assert torch.equal(got.float(), expected.float())


# -- mutations -----------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random, head: int) -> bytes:
    """The file with some bytes changed, removed or put in; mostly in its first `head` bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(head if rng.random() < 0.8 else len(out))
        at = min(at, max(len(out) - 1, 0))
        kind = rng.randrange(5)
        if kind == 0:
            out[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            out[at:at + 8] = struct.pack("<Q", rng.choice((0, 1, (1 << 63) - 1, (1 << 64) - 1,
                                                           rng.getrandbits(40))))
        elif kind == 2:
            del out[at:at + rng.randrange(1, 40)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            digit = bytes(rng.choice(b"0123456789-[]{},\"") for _ in range(2))
            out[at:at + 2] = digit
        if rng.random() < 0.05:
            del out[rng.randrange(len(out)):]
    return bytes(out)


def loads_or_is_refused(path: Path) -> bool:
    """Whether a damaged model loads; it then computes something, else the error is ours."""
    begin = time.process_time()
    try:
        runner, _ = load_runner(path)
    except ModelError as e:
        assert e.code == "SGLC504" and str(path) in str(e)
        return False
    finally:
        assert time.process_time() - begin < SECONDS
    runner.allocate(4)
    assert len(runner.logits(torch.zeros(1, 16))[0]) == runner.vocab_size
    return True


def mutate(file: Path, model: Path, head: int, count: int) -> None:
    data, rng = file.read_bytes(), random.Random(7)
    loaded = sum(_tried(file, model, mutated(data, rng, head)) for _ in range(count))
    file.write_bytes(data)
    assert loaded < count  # some damage is of weights alone; most is not


def _tried(file: Path, model: Path, data: bytes) -> bool:
    file.write_bytes(data)
    return loads_or_is_refused(model)


COUNTS = [25, pytest.param(500, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["model-00001-of-00003.safetensors", "config.json",
                                  "model.safetensors.index.json"])
def test_mutated_folders(copy: Path, name: str, count: int) -> None:
    file = copy / name
    head = 8 + struct.unpack("<Q", file.read_bytes()[:8])[0] if name.endswith("tensors") \
        else file.stat().st_size
    mutate(file, copy, head, count)


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_gguf(small: Path, tmp_path: Path, count: int) -> None:
    file = tmp_path / "model.gguf"
    shutil.copyfile(small.parent / f"{small.name}.gguf", file)
    mutate(file, file, 3000, count)


def test_truncated_files(copy: Path, small: Path, tmp_path: Path) -> None:
    shard, rng = copy / "model-00001-of-00003.safetensors", np.random.default_rng(0)
    data = shard.read_bytes()
    for n in [0, 7, 8, 9, len(data) - 1, *rng.integers(0, len(data), 8).tolist()]:
        shard.write_bytes(data[:n])
        refused(copy, shard.name)
    whole, file = (small.parent / f"{small.name}.gguf").read_bytes(), tmp_path / "cut.gguf"
    for n in [0, 4, 23, 24, len(whole) // 2, *rng.integers(0, len(whole) - 4096, 8).tolist()]:
        file.write_bytes(whole[:n])
        refused(file, "cut.gguf")


def test_one_part_of_a_split_gguf(small: Path, tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refused(tmp_path / "a.gguf", "a.gguf", "split.count")
