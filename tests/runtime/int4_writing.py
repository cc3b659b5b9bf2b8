"""Writes AWQ and GPTQ checkpoints in their standard layouts, from the formats' descriptions: a
code at a time, sharing nothing with what reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Format:
    """method: "awq" or "gptq".  size: of groups, -1 for all columns.  act_order: columns of a group
    lie anywhere, in the same places in layers of one width unless `alone`.  v2: of GPTQ's zeros.
    """

    method: str
    size: int
    sym: bool = False
    act_order: bool = False
    v2: bool = False
    alone: bool = False

    def config(self, **more: Any) -> dict[str, Any]:
        if self.method == "awq":
            return {"quant_method": "awq", "bits": 4, "group_size": self.size,
                    "zero_point": True, "version": "gemm", **more}
        form = {"checkpoint_format": "gptq_v2"} if self.v2 else {}
        return {"quant_method": "gptq", "bits": 4, "group_size": self.size, "sym": self.sym,
                "desc_act": self.act_order, "damp_percent": 0.01, **form, **more}


def quantize(weight: np.ndarray, form: Format, rng: np.random.Generator
             ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The dequantized (out, in) of a weight, and the tensors of its layer."""
    rows, columns = weight.shape
    size = columns if form.size == -1 else form.size
    group_of = np.arange(columns) // size
    if form.act_order:
        group_of = (rng if form.alone else np.random.default_rng(columns)).permutation(group_of)
    codes = np.zeros((columns, rows), np.int64)
    zeros = np.zeros((columns // size, rows), np.int64)
    scales = np.zeros((columns // size, rows), np.float16)
    dense = np.zeros_like(weight)
    for g in range(columns // size):
        mine = weight[:, group_of == g]
        low, high = mine.min(1), mine.max(1)
        if form.sym:
            scale = (np.maximum(-low, high) / 7.5).astype(np.float16)
            zero = np.full(rows, 8)
        else:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = ((high - low) / 15).astype(np.float16)
            zero = np.clip(np.rint(-low / scale), 0 if form.method == "awq" or form.v2 else 1, 15)
        scales[g], zeros[g] = scale, zero
        code = np.clip(np.rint(mine / scale[:, None] + zero[:, None]), 0, 15)
        codes[group_of == g] = code.T
        dense[:, group_of == g] = (code - zero[:, None]) * scale[:, None].astype(np.float32)
    if form.method == "awq":
        return dense, {"qweight": awq_words(codes), "qzeros": awq_words(zeros), "scales": scales}
    return dense, {"qweight": words(codes.T).T, "qzeros": words(zeros - (not form.v2)),
                   "scales": scales, "g_idx": group_of.astype(np.int32)}


def words(codes: np.ndarray) -> np.ndarray:
    """int32 (n, m / 8): codes side by side, lowest bits first."""
    out = np.zeros((len(codes), codes.shape[1] // 8), np.uint32)
    for column in range(codes.shape[1]):
        out[:, column // 8] |= codes[:, column].astype(np.uint32) << np.uint32(4 * (column % 8))
    return out.view(np.int32)


def awq_words(codes: np.ndarray) -> np.ndarray:
    out = np.zeros((len(codes), codes.shape[1] // 8), np.uint32)
    for word in range(out.shape[1]):
        for i, place in enumerate(AWQ_ORDER):
            out[:, word] |= codes[:, 8 * word + place].astype(np.uint32) << np.uint32(4 * i)
    return out.view(np.int32)


def quantize_folder(path: Path, form: Format, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Quantizes the layers of a saved model in place but those whose names have one of `keep`;
    the weights it then has, by name."""
    rng = np.random.default_rng(0)
    weights, stored = load_file(path / "model.safetensors"), {}
    for name, weight in list(weights.items()):
        layer = name.removesuffix(".weight")
        if layer == name or not layer.endswith(("_proj", "w1", "w2", "w3")) or any(
                part in layer for part in keep):
            stored[name] = weight
            continue
        dense, parts = quantize(weight.float().numpy(), form, rng)
        weights[name] = torch.from_numpy(dense)
        stored |= {f"{layer}.{part}": torch.from_numpy(np.ascontiguousarray(array))
                   for part, array in parts.items()}
    save_file(stored, path / "model.safetensors")
    file = path / "config.json"
    more = {"modules_to_not_convert": list(keep)} if keep else {}
    file.write_text(json.dumps(json.loads(file.read_text()) | {
        "quantization_config": form.config(**more)}))
    return weights
