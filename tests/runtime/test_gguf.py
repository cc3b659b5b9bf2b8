"""The GGUF reader: equal to the `gguf` package, and damaged files are errors."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglc.errors import ModelError
from sglc.runtime.weights.fetch import fetch_default_model
from sglc.runtime.weights.ggml_types import GGML_TYPES, dequantize
from sglc.runtime.weights.gguf import GGUFFile

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return fetch_default_model()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every kind of metadata and two tensors, written by the `gguf` package."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.u32", 7)
    writer.add_int8("a.i8", -3)
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "é €")
    writer.add_array("a.strings", ["x", "", "日本"])
    writer.add_array("a.ints", [1, -2, 3])
    writer.add_array("a.nested", [[1, 2], [3]])
    writer.add_tensor("w", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.add_tensor("h", np.arange(6, dtype=np.float16).reshape(1, 2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_and_tensors(small: Path) -> None:
    file = GGUFFile(small)
    values = {k[2:]: v for k, v in file.metadata.items() if k.startswith("a.")}
    assert values == {"u32": 7, "i8": -3, "f32": 0.5, "f64": 0.1, "bool": True, "string": "é €",
                      "strings": ["x", "", "日本"], "ints": [1, -2, 3], "nested": [[1, 2], [3]]}
    assert values["bool"] is True
    assert file.metadata["general.architecture"] == "llama"
    assert torch.equal(file.read("w"), torch.arange(64.0).view(2, 32))
    assert torch.equal(file.read("h"), torch.arange(6.0).view(1, 2, 3))


@pytest.mark.parametrize("type_id", sorted(GGML_TYPES), ids=lambda i: GGML_TYPES[i].name)
def test_dequantize_equals_gguf(type_id: int) -> None:
    kind = GGML_TYPES[type_id]
    rng = np.random.default_rng(type_id)
    raw = rng.integers(0, 256, (300, kind.n_bytes), dtype=np.uint8)
    wide = rng.normal(size=(300, kind.n_bytes)).astype(np.float32)  # no NaN or infinite scales
    if kind.block == 1:
        raw = {0: wide, 1: wide.astype(np.float16), 30: wide}[type_id].view(np.uint8)
    else:
        scales = {2: [0], 3: [0, 2], 6: [0], 7: [0, 2], 8: [0], 12: [0, 2], 13: [0, 2], 14: [208]}
        for at in scales[type_id]:
            raw[:, at:at + 2] = wide[:, at:at + 1].astype(np.float16).view(np.uint8)
    expected = gguf.dequantize(raw.reshape(1, -1), gguf.GGMLQuantizationType(type_id))
    got = dequantize(raw.reshape(-1), type_id).numpy()
    np.testing.assert_array_equal(got, expected.reshape(-1))


def test_smollm2_equals_gguf(smollm2: Path) -> None:
    file = GGUFFile(smollm2)
    assert len(file.tensors) == 272
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 49152
    data = np.memmap(smollm2, np.uint8, "r")
    for name in ("token_embd.weight", "blk.0.attn_q.weight", "blk.29.ffn_down.weight",
                 "output_norm.weight"):
        info = file.tensors[name]
        raw = np.array(data[info.offset:info.offset + info.n_bytes])
        expected = gguf.dequantize(raw.reshape(info.shape[0], -1),
                                   gguf.GGMLQuantizationType(info.type_id))
        np.testing.assert_array_equal(file.read(name).numpy(), expected.reshape(info.shape))


@pytest.mark.slow
def test_smollm2_directory_equals_gguf(smollm2: Path) -> None:
    file, reader = GGUFFile(smollm2), gguf.GGUFReader(smollm2)
    assert set(file.tensors) == {t.name for t in reader.tensors}
    for t in reader.tensors:
        info = file.tensors[t.name]
        assert (info.offset, info.n_bytes) == (t.data_offset, t.n_bytes)
        assert info.shape == tuple(int(n) for n in t.shape)[::-1]
    for key, value in file.metadata.items():
        assert value == reader.fields[key].contents()


def header(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def text(s: str) -> bytes:
    return struct.pack("<Q", len(s)) + s.encode()


HUGE = (1 << 64) - 1


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty"),
    (b"GGUF", "shorter"),
    (b"PK\x03\x04" + bytes(60), "starts with"),
    (header(1), "version 1"),
    (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    (header(keys=HUGE), "metadata count"),
    (header(tensors=1 << 40), "tensor count"),
    (header(keys=1) + struct.pack("<Q", HUGE) + bytes(40), "metadata key"),
    (header(keys=1) + text("k") + struct.pack("<I", 99) + bytes(40), "unknown type 99"),
    (header(keys=1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 40), "too long"),
    (header(keys=1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 20), "length of 'k'"),
    (header(keys=1) + text("k") + struct.pack("<IIQQ", 9, 8, 1, HUGE), "item 0 of 1"),
    (header(keys=1) + text("k") + struct.pack("<IIQ", 9, 10, 1 << 20), "value of 'k'"),
    (header(keys=1) + text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 40, "too deep"),
    (header(keys=2) + (text("k") + struct.pack("<IB", 0, 1)) * 2, "twice"),
    (header(tensors=1) + text("t") + struct.pack("<I", 9) + bytes(80), "9 dimensions"),
    (header(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 32, 77, 0) + bytes(40), "type 77"),
    (header(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 33, 2, 0) + bytes(40), "shape"),
    (header(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 0, 0, 0) + bytes(40), "shape"),
    (header(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 1 << 62, 0, 0) + bytes(40),
     "truncated"),
    (header(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 32, 0, 1 << 63) + bytes(40),
     "truncated"),
    (header(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 1, 0, 3) + bytes(40), "aligned"),
])
def test_bad_files(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=reason) as e:
        GGUFFile(path)
    assert e.value.code == "SGLC504"
    assert "bad.gguf" in str(e.value)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelError, match="SGLC504"):
            GGUFFile(path)


def test_every_truncation_is_an_error(small: Path, tmp_path: Path) -> None:
    data, path = small.read_bytes(), tmp_path / "cut.gguf"
    last = max(t.offset + t.n_bytes for t in GGUFFile(small).tensors.values())
    for n in [*range(0, last, 7), last - 1]:
        path.write_bytes(data[:n])
        with pytest.raises(ModelError):
            GGUFFile(path)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1200), st.binary(min_size=1, max_size=8)), min_size=1,
                max_size=3))
def test_damage_never_crashes(small: Path, tmp_path: Path,
                              changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(small.read_bytes())
    for at, new in changes:
        at = min(at, len(data) - 8)
        data[at:at + len(new)] = new
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    try:
        file = GGUFFile(path)
    except ModelError:
        return
    for name in file.tensors:
        file.read(name)
