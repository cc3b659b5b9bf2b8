"""AWQ and GPTQ checkpoints: logits as those of the dequantized model, on the CPU and by the
device's steps; parts of matrices; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sglc.errors import ModelError
from sglc.kernels.int4 import Int4Matrix, random_int4, stacked_int4
from sglc.kernels.registry import resolve_device
from sglc.kernels.residual import Residual
from sglc.runtime.cuda.layers import read_layer
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.cuda.reader import DeviceReader
from sglc.runtime.model_runner import load_runner, open_model
from sglc.runtime.models.quantization import int4_scheme
from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.parallel.sharded import ShardedWeights
from sglc.runtime.parallel.split import Split
from sglc.runtime.weights.int4_checkpoint import int4_of
from sglc.runtime.weights.source import Part, WeightSource
from tests.runtime.int4_writing import Format, quantize_folder
from tests.runtime.model_steps import alone, close, expected_logits, tokens

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 96, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
         "pad_token_id": None}
FORMATS = {
    "awq": Format("awq", 128), "awq 32": Format("awq", 32), "awq, whole rows": Format("awq", -1),
    "gptq": Format("gptq", 128, sym=True), "gptq 32": Format("gptq", 32),
    "gptq, whole rows": Format("gptq", -1), "gptq act": Format("gptq", 64, act_order=True),
    "gptq v2": Format("gptq", 64, v2=True),
    "gptq act, each layer its own": Format("gptq", 64, act_order=True, alone=True),
    "gptq v2 sym act": Format("gptq", 32, sym=True, act_order=True, v2=True),
}
Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quantized(path: Path, form: Format, kind: str = "Llama", keep: tuple[str, ...] = (),
              **more: Any) -> Any:
    """A random quantized model at `path`; transformers' model of its dequantized weights."""
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**SMALL | more)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    for label, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=float(label.endswith("norm.weight")), std=0.2)
    model.save_pretrained(path)
    weights = quantize_folder(path, form, keep)
    shutil.copytree(path, path / "dense")
    save_file(weights, path / "dense" / "model.safetensors", metadata={"format": "pt"})
    file = path / "dense" / "config.json"
    plain = json.loads(file.read_text())
    del plain["quantization_config"]
    file.write_text(json.dumps(plain))
    return getattr(transformers, f"{kind}ForCausalLM").from_pretrained(path / "dense").eval()


# -- logits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_logits_equal_the_dequantized_model(tmp_path: Path, name: str) -> None:
    model = quantized(tmp_path, FORMATS[name])
    ids = tokens(30)
    expected = expected_logits(model, ids)
    runner = load_runner(tmp_path)[0]
    close(alone(runner, ids), expected, 1e-2)
    assert runner.loaded is not None
    assert runner.loaded.bytes == sum(
        t.nbytes for t in load_file(tmp_path / "model.safetensors").values())
    device = load_device_runner(tmp_path, device="cpu", kernels="torch", dtype="float32",
                                graphs=False, max_tokens=64, max_rows=8)[0]
    assert device.loaded is not None and device.loaded.bytes == runner.loaded.bytes
    assert device._working_bytes() > 512 * 128 * 4
    close(alone(device, ids), expected, 1e-2)


@pytest.mark.parametrize(("kind", "more"), [
    ("Qwen2", {}), ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2})])
def test_other_families(tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    model = quantized(tmp_path, FORMATS["gptq act"], kind, **more)
    ids = tokens(20)
    close(alone(load_runner(tmp_path)[0], ids), expected_logits(model, ids), 1e-2)


@pytest.mark.parametrize("keep", [(), ("up_proj",), ("gate_proj", "up_proj"), ("down_proj",)],
                         ids=str)
def test_gate_and_up_in_the_order_of_down(tmp_path: Path, keep: tuple[str, ...]) -> None:
    """Of 4 bits or not, with their biases; also where the groups of a rank's part are uneven."""
    model = quantized(tmp_path, FORMATS["gptq act, each layer its own"], keep=keep, mlp_bias=True)
    ids = tokens(20)
    options: dict[str, Any] = {"device": "cpu", "kernels": "torch", "dtype": "float32",
                               "max_tokens": 64}
    runner = load_device_runner(tmp_path, **options)[0]
    close(alone(runner, ids), expected_logits(model, ids), 1e-2)
    for layer in runner._open()._layers:
        assert not layer.unit and layer.feed.unit == (keep == ("gate_proj", "up_proj"))
        down = layer.feed.down.weight
        assert isinstance(down, torch.Tensor) if keep == ("down_proj",) else down.group_of is None
    source, config = open_model(tmp_path)[:2]
    kernels = resolve_device("torch")
    x = torch.randn(3, config.hidden_size)

    def fed(source: WeightSource, config: LlamaConfig) -> torch.Tensor:
        read = DeviceReader(config, source, kernels, torch.float32, torch.device("cpu"))
        return read_layer(config, read, 1).feed(Residual(x), None).x

    halves = [fed(ShardedWeights(source, config, split), split.part(config))
              for split in (Split(0, 2), Split(1, 2))]
    close(halves[0] + halves[1], fed(source, config), 1e-3)


def test_layers_that_are_not_converted(tmp_path: Path) -> None:
    model = quantized(tmp_path, FORMATS["awq"], keep=("k_proj", "layers.1.mlp"))
    ids = tokens(20)
    for runner in (load_runner(tmp_path)[0], load_device_runner(
            tmp_path, device="cpu", kernels="torch", dtype="float32", max_tokens=64)[0]):
        close(alone(runner, ids), expected_logits(model, ids), 1e-2)
    source = open_model(tmp_path)[0]
    at = "model.layers.{}.{}_proj.weight"
    assert int4_of(source, at.format(0, "mlp.up")) is not None
    for kept in (at.format(1, "mlp.up"), at.format(0, "self_attn.k"), "lm_head.weight"):
        assert int4_of(source, kept) is None


def test_biases_that_some_writers_add(tmp_path: Path) -> None:
    model = quantized(tmp_path, FORMATS["gptq"])
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {f"{Q}.bias": torch.zeros(128, dtype=torch.float16)}, file)
    ids = tokens(20)
    close(alone(load_runner(tmp_path)[0], ids), expected_logits(model, ids), 1e-2)
    save_file(weights | {f"{Q}.bias": torch.ones(128, dtype=torch.float16)}, file)
    with pytest.raises(ModelError, match=rf"{Q}.bias is not zero"):
        load_runner(tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FORMATS)
def test_logits_on_a_gpu(tmp_path: Path, name: str) -> None:
    pytest.importorskip("triton")
    from sglc.kernels.fused_linear_triton import PackedWeight
    from sglc.kernels.int4_pack import PackedInt4

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's kernels on the CPU
    model = quantized(tmp_path, FORMATS[name])
    for dtype, limit in (("float32", 1e-2), ("float16", 1e-1), ("bfloat16", 8e-1)):
        if interpreted and dtype != "float32":
            continue
        runner = load_device_runner(tmp_path, dtype=dtype, max_tokens=512, max_rows=64,
                                    device="cpu" if interpreted else "cuda", kernels="triton")[0]
        layer = runner._open()._layers[0]
        assert isinstance(layer.out.weight, PackedInt4)
        assert isinstance(layer.qkv, PackedWeight if "its own" in name else PackedInt4)
        # What goes to `out` has to be put in order; what goes to `down` comes in it.
        assert (layer.out.weight.order is not None) == FORMATS[name].act_order
        assert layer.feed.down.weight.order is None
        for n in (1, 4) if interpreted else (1, 2, 30, 60):
            got = alone(runner, tokens(n)).cpu()
            close(got, expected_logits(model, tokens(n)), limit)
        runner.close()


# -- parts and stacks ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["awq 32", "awq, whole rows", "gptq act", "gptq v2"])
def test_parts_of_matrices(tmp_path: Path, name: str) -> None:
    """As ranks of a tensor-parallel model read them, in whole words and groups or not."""
    quantized(tmp_path, FORMATS[name])
    source = open_model(tmp_path)[0]
    weight = "model.layers.0.mlp.down_proj.weight"
    whole = source.read(weight)
    assert whole.shape == (128, 256)
    for rows, columns in (((0, 64), None), ((64, 128), None), (None, (128, 256)), (None, (64, 96)),
                          ((3, 77), None), (None, (40, 200)), ((8, 9), (1, 255)), (None, None)):
        part = Part((128, 256), rows, columns)
        assert torch.equal(source.read(weight, part), part.of(whole))
    assert torch.equal(source.read(weight, Part((128, 128), (0, 3))), whole)


def test_stacks() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (random_int4((n, 96), 32, torch.float16, random) for n in (8, 16))
    both = stacked_int4([a, b])
    assert both is not None
    assert torch.equal(both.dense(torch.float32),
                       torch.cat((a.dense(torch.float32), b.dense(torch.float32))))
    other = Int4Matrix(b.codes, b.scales, b.zeros, torch.randperm(96) // 32)
    for parts in ([a, None], [a, other], [a, random_int4((8, 96), 96, torch.float16, random)], []):
        assert stacked_int4(parts) is None
    moved, order = other.ordered()
    assert order is not None and moved.group_of is None
    assert torch.equal(moved.dense(torch.float32), other.dense(torch.float32)[:, order])
    uneven = Int4Matrix(b.codes, b.scales, b.zeros, torch.arange(96).clamp(max=60) // 32)
    assert uneven.ordered()[0].group_of is not None


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_random_weights(tmp_path: Path, method: str) -> None:
    config = {**SMALL, "model_type": "llama", "quantization_config": Format(method, 64).config(
        modules_to_not_convert=["layers.0.mlp.down_proj"])}
    (tmp_path / "config.json").write_text(json.dumps(config))
    runner = load_device_runner(tmp_path, device="cpu", kernels="torch", dtype="float32",
                                load_format="dummy", max_tokens=64)[0]
    feeds = [layer.feed for layer in runner._open()._layers]
    assert isinstance(feeds[1].down.weight, Int4Matrix) and isinstance(feeds[0].gate_up, Int4Matrix)
    assert isinstance(feeds[0].down.weight, torch.Tensor)
    assert runner.loaded is None
    assert torch.isfinite(alone(runner, tokens(9))).all()


# -- what is refused -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["awq", "gptq"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / request.param
    quantized(path, Format(request.param, 64))
    return path


def refused(path: Path, *names: str) -> None:
    for load in (load_runner, lambda p: load_device_runner(p, device="cpu", kernels="torch")):
        with pytest.raises(ModelError) as e:
            load(path)
        assert e.value.code == "SGLC504"
        for name in names:
            assert name in str(e.value), e.value


@pytest.mark.parametrize(("changes", "names"), [
    ({"bits": 3}, ["bits is 3"]), ({"bits": 8}, ["bits is 8"]), ({"bits": "4"}, ["bits is '4'"]),
    ({"bits": None}, ["no bits"]), ({"group_size": 48}, ["group_size 48"]),
    ({"group_size": 0}, ["group_size is 0"]), ({"group_size": "all"}, ["group_size is 'all'"]),
    ({"group_size": 32}, [".qzeros", "[4, 16]"]), ({"quant_method": None}, ["no quant_method"]),
    *[({"quant_method": m}, ["quant_method", repr(m)])
      for m in ("bitsandbytes", "fp8", "compressed-tensors", "aqlm", "")],
    ({"modules_to_not_convert": "all"}, ["modules_to_not_convert"]),
], ids=str)
def test_configurations(made: Path, tmp_path: Path, changes: dict[str, Any], names: list[str]
                        ) -> None:
    path = Path(shutil.copytree(made, tmp_path / "copy"))
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] |= changes
    (path / "config.json").write_text(json.dumps(config))
    refused(path, "config.json", "quantization_config", *names)


@pytest.mark.parametrize(("method", "changes", "name"), [
    ("awq", {"version": "gemv"}, "version is 'gemv'"),
    ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
    ("gptq", {"dynamic": {"-:.*": {}}}, "dynamic"), ("gptq", {"pack_dtype": "int16"}, "pack_dtype"),
    ("gptq", {"lm_head": 1}, "lm_head"),
])
def test_variants(method: str, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ModelError, match=f"quantization_config: .*{name}"):
        int4_scheme({"quantization_config": Format(method, 64).config(**changes)})


def replace(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return lambda w: {name: change(w[name])}


@pytest.mark.parametrize(("change", "names"), [
    (lambda w: {f"{Q}.scales": None}, [f"no {Q}.scales"]),
    (lambda w: {f"{Q}.qzeros": None}, [f"no {Q}.qzeros"]),
    (lambda w: {f"{Q}.qweight": None}, [f"no {Q}.qweight"]),
    (lambda w: {f"{Q}.weight": torch.zeros(128, 128)}, [f"{Q} has both"]),
    (replace(f"{Q}.scales", lambda t: t[:, :64]), [f"{Q}.scales", "[2, 64]", "[2, 128]"]),
    (replace(f"{Q}.scales", lambda t: t.to(torch.int32)), [f"{Q}.scales", "int32"]),
    (replace(f"{Q}.qzeros", lambda t: t[:1]), [f"{Q}.qzeros", "[1, 16]", "[2, 16]"]),
    (replace(f"{Q}.qweight", lambda t: t.long()), [f"{Q}.qweight", "int64"]),
    (replace(f"{Q}.qweight", lambda t: t.flatten()), [f"{Q}.qweight", "the shape"]),
])
def test_tensors(made: Path, tmp_path: Path, change: Any, names: list[str]) -> None:
    path = Path(shutil.copytree(made, tmp_path / "copy"))
    damage(path, change)
    refused(path, "model.safetensors", *names)


@pytest.mark.parametrize(("change", "names"), [
    (lambda w: {f"{Q}.g_idx": None}, [f"no {Q}.g_idx"]),
    (replace(f"{Q}.g_idx", lambda t: t[:-8]), [f"{Q}.g_idx", "128 integers"]),
    (replace(f"{Q}.g_idx", lambda t: t.float()), [f"{Q}.g_idx", "float32"]),
    (replace(f"{Q}.g_idx", lambda t: t + 1), [f"{Q}.g_idx", "groups 1 to 2 of 2"]),
    (replace(f"{Q}.g_idx", lambda t: -t), [f"{Q}.g_idx", "groups -1 to 0"]),
    # All of a layer for a smaller one: they fit each other, but not the model.
    (lambda w: {f"{Q}.{p}": w[f"model.layers.1.self_attn.k_proj.{p}"]
                for p in ("qweight", "qzeros", "scales", "g_idx")},
     [f"{Q}.weight", "[64, 128]", "[128, 128]"]),
])
def test_tensors_of_gptq(tmp_path: Path, change: Any, names: list[str]) -> None:
    quantized(tmp_path, Format("gptq", 64))
    damage(tmp_path, change)
    refused(tmp_path, "model.safetensors", *names)


def damage(path: Path, change: Any) -> None:
    file = path / "model.safetensors"
    weights = load_file(file)
    weights |= change(weights)
    save_file({n: w.clone() for n, w in weights.items() if w is not None}, file)


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_files(made: Path, tmp_path: Path, count: int) -> None:
    """Whatever bytes of the header are changed: the error is ours, or it computes something."""
    path = Path(shutil.copytree(made, tmp_path / "copy"))
    file = path / "model.safetensors"
    data, rng = file.read_bytes(), np.random.default_rng(5)
    head = 8 + int.from_bytes(data[:8], "little")
    refusals = 0
    for _ in range(count):
        out = bytearray(data)
        for at in rng.integers(0, head, 2):
            out[at] = rng.choice(list(b'0123456789,"')) if at >= 8 else rng.integers(256)
        file.write_bytes(out)
        try:
            runner = load_runner(path)[0]
        except ModelError as e:
            assert e.code == "SGLC504" and str(path) in str(e)
            refusals += 1
            continue
        assert alone(runner, tokens(3)).shape == (3, 96)
    assert refusals > count // 3
